/* Requests to pair, PROTOCOL.md sections 1, 2 and 4: three of them at once, on
 * two challenges, so that at least two use the same one; an owner who answers
 * what was shown, sooner or later; a caller that may hang up; a delivery that
 * may fail. Checked with scripts/models; each BROKEN_ variant must fail. */

#define REQUESTS 3
#define CHALLENGES 2
#define NOBODY 255

bool outstanding[CHALLENGES] = true;
byte minted[CHALLENGES];
byte shown = NOBODY;            /* whose prompt waits */
byte prompts;                   /* how many do */
mtype = { none, allowed, denied };
mtype verdict[REQUESTS];
byte answers[REQUESTS];         /* how often a prompt was resolved */
bool said[REQUESTS];            /* the owner allowed this very request */
bool live[REQUESTS];            /* its key is valid */
bool delivered[REQUESTS];
byte ended;

inline resolve(who, what) {
	atomic {
		if
		:: verdict[who] == none -> verdict[who] = what; answers[who]++
#ifdef BROKEN_TWICE
		:: else -> verdict[who] = what; answers[who]++
#else
		:: else
#endif
		fi;
		assert(answers[who] <= 1)       /* it resolves exactly once */
	}
}

proctype Request(byte me; byte challenge) {
	verdict[me] = none;
	/* the challenge is spent whatever follows */
#ifdef BROKEN_SPEND
	if
	:: outstanding[challenge] -> skip
	:: else -> goto out
	fi;
	outstanding[challenge] = false;
#else
	if
	:: atomic { outstanding[challenge] -> outstanding[challenge] = false }
	:: else -> goto out
	fi;
#endif
	if
	:: atomic { shown == NOBODY -> shown = me; prompts++ }
	:: else -> goto out                     /* busy */
	fi;
	assert(prompts == 1);
	do
	:: verdict[me] != none -> break
	:: resolve(me, denied)                  /* silence, or the caller hung up */
	od;
	atomic { prompts--; shown = NOBODY };
	if
	:: verdict[me] == allowed ->
		atomic {
			minted[challenge]++;
			assert(minted[challenge] <= 1);  /* one challenge, one key */
			live[me] = true
		};
		if
		:: delivered[me] = true
#ifndef BROKEN_LOST
		:: live[me] = false              /* it could not be written: revoked */
#else
		:: skip
#endif
		fi
	:: else
	fi;
out:
	ended++
}

proctype Owner() {
	byte saw;
	do
	:: ended == REQUESTS -> break
	:: atomic { shown != NOBODY -> saw = shown };
		/* any time may pass here, and another prompt take its place */
		if
		:: atomic { said[saw] = true };
#ifdef BROKEN_ANSWER
			atomic {
				if
				:: shown != NOBODY -> resolve(shown, allowed)
				:: else
				fi
			}
#else
			resolve(saw, allowed)           /* the answer names its prompt */
#endif
		:: resolve(saw, denied)
		fi
	od
}

init {
	byte i;
	atomic {
		run Request(0, 0);
		run Request(1, 0);
		run Request(2, 1);
		run Owner()
	};
	ended == REQUESTS;
	for (i : 0 .. REQUESTS-1) {
		/* a key is valid only if its owner said so and it arrived */
		assert(!live[i] || (said[i] && delivered[i]))
	}
}
