/* Takeover, PROTOCOL.md section 4: two hosts with the same agent at a relay
 * that may lose sockets, and frames with them. The newest proof owns the
 * address; who was superseded stays away until its owner asks. Checked with
 * scripts/models; each BROKEN_ variant must fail. */

#define HOSTS 2
#define TUNNELS 8
#define NOBODY 255
#define ASKS 2          /* how often an owner enables the agent */
#define DROPS 2         /* how often a socket is lost */

byte entry = NOBODY;            /* the tunnel that the relay's table names */
byte next;                      /* the next tunnel's number */
bool dying[TUNNELS];            /* it ended, and the relay has not tidied up */
byte whose[TUNNELS];            /* which host opened it */

byte tunnel[HOSTS] = NOBODY;    /* the one that a host has open */
bool told[HOSTS];               /* "superseded" is under way to it */
bool wanted[HOSTS];             /* its owner enabled the agent there */
bool elsewhere[HOSTS];          /* it knows that another has it */
byte asked, drops, takeovers;

/* What the relay does with a proof, at once. */
inline connect(h) {
	if
	:: entry != NOBODY && whose[entry] != h -> told[whose[entry]] = true; takeovers++
	:: else
	fi;
	tunnel[h] = next;
	whose[next] = h;
	entry = next;
	told[h] = false;
	next++;
	/* nobody takes it back unasked; only a lost frame may cost one round more */
	assert(takeovers <= asked + drops)
}

inline leave(h) {
	dying[tunnel[h]] = true;
	tunnel[h] = NOBODY;
	told[h] = false
}

proctype Host(byte h) {
end:
	do
	:: atomic { asked < ASKS && next < TUNNELS && (tunnel[h] == NOBODY || told[h]) ->
		asked++;
		wanted[h] = true;
		elsewhere[h] = false;
		if
		:: tunnel[h] != NOBODY -> leave(h)
		:: else
		fi;
		connect(h) }
#ifdef BROKEN_AGAIN
	:: atomic { wanted[h] && tunnel[h] == NOBODY && next < TUNNELS -> connect(h) }
#else
	:: atomic { wanted[h] && tunnel[h] == NOBODY && !elsewhere[h] && next < TUNNELS -> connect(h) }
#endif
	:: atomic { tunnel[h] != NOBODY && told[h] -> elsewhere[h] = true; leave(h) }
	:: atomic { tunnel[h] != NOBODY && drops < DROPS -> drops++; leave(h) }
	od
}

/* The relay tidies up after a tunnel that ended, some time later. */
proctype Relay() {
	byte t;
end:
	do
	:: atomic {
		select (t : 0 .. 7);
		if
		:: dying[t] ->
			dying[t] = false;
#ifdef BROKEN_DELETE
			entry = NOBODY;                 /* whoever has it by now */
#else
			if
			:: entry == t -> entry = NOBODY
			:: else
			fi;
#endif
			/* an open tunnel keeps its entry, unless it is being told */
			assert(tunnel[0] == NOBODY || told[0] || entry == tunnel[0]);
			assert(tunnel[1] == NOBODY || told[1] || entry == tunnel[1])
		:: else
		fi }
	od
}

init {
	atomic { run Host(0); run Host(1); run Relay() }
}
