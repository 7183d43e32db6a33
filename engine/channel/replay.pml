/* The replay window, PROTOCOL.md section 4: calls arrive in any order, twice or
 * never, in two handlers at once, and a ring that is smaller than the numbers
 * must decide as a set without end would. Checked with scripts/models; each
 * BROKEN_ variant must fail. */

#define NUMBERS 7       /* sequence numbers 1 to 6 */
#define RING 4
#define WINDOW 3        /* one slot is the one being filled */
#define CALLS 4         /* of each handler */

byte last;
bool ring[RING];
bool seen[NUMBERS];     /* the set without end */
byte ended;

inline behind(n, yes) {
	yes = (n == 0 || (n < last && last - n >= WINDOW))
}

inline mark(n) {
	if
	:: n > last ->
#ifndef BROKEN_RING
		byte k = last + 1;
		do
		:: k <= n -> ring[k % RING] = false; k++
		:: else -> break
		od;
#endif
		last = n
	:: else
	fi;
	fresh = !ring[n % RING];
	ring[n % RING] = true
}

proctype Handler() {
	byte n, i;
	bool old, fresh, expected;
	for (i : 1 .. CALLS) {
		select (n : 0 .. 6);
#ifdef BROKEN_LATE
		behind(n, old);                 /* looked at once, marked later */
		atomic {
			expected = false;
			if
			:: old
			:: else ->
				fresh = true;
				if
				:: n > last -> last = n
				:: else
				fi;
				assert(!seen[n]);
				seen[n] = true
			fi
		}
#else
		atomic {
			behind(n, old);
			expected = !old && !seen[n];
			if
			:: old -> fresh = false
			:: else -> mark(n)
			fi;
			assert(fresh == expected);      /* as the set says */
			if
			:: fresh -> assert(!seen[n]); seen[n] = true
			:: else
			fi
		}
#endif
	}
	ended++
}

init {
	atomic { run Handler(); run Handler() }
}
