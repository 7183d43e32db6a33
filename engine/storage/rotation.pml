/* Rotation of the storage key: two stores and a manifest, a keystore and a
 * journal, killed between any two steps, in the rotation and in every launch
 * after it. Checked with scripts/models; each BROKEN_ variant must fail.
 *
 *	prepare: next key saved, journal; copies sealed with it
 *	commit:  old key saved under its id, journal; copies renamed, manifest last
 *	done:    main key replaced, next deleted, journal */

#define STORES 3        /* the manifest is the last one */
#define KILLS 3
#define OLD 1
#define NEW 2
#define NONE 0

byte file[STORES] = OLD;        /* which key a file is sealed with */
byte copy[STORES] = NONE;
byte aside = OLD;               /* a quarantined file, which is never rewritten */
byte mainKey = OLD, nextKey = NONE, savedKey = NONE;
mtype = { absent, prepare, commit, finished };
mtype journal = absent;
byte kills;
bool running = true;

#define known(k) (k == mainKey || k == nextKey || k == savedKey)

/* Nothing on disk is ever sealed with a key that is gone. */
#define readable (known(file[0]) && known(file[1]) && known(file[2]) && known(aside))

inline killed() {
	if
	:: kills < KILLS -> kills++; goto launch
	:: true
	fi
}

inline rename_all() {
	i = 0;
	do
	:: i < STORES ->
		if
		:: copy[i] != NONE -> atomic { file[i] = copy[i]; copy[i] = NONE }
		:: else
		fi;
		assert(readable);
		killed();
		i++
	:: else -> break
	od
}

inline finish() {
	rename_all();
	mainKey = NEW;
	assert(readable);
	killed();
	nextKey = NONE;
	assert(readable);
	killed();
	journal = finished;
	killed()
}

proctype Host() {
	byte i;
	/* rotate */
	nextKey = NEW;
	killed();
	journal = prepare;
	killed();
	i = 0;
	do
	:: i < STORES -> copy[i] = NEW; killed(); i++
	:: else -> break
	od;
#ifdef BROKEN_EARLY
	mainKey = NEW;                          /* before anything is renamed */
	assert(readable);
	killed();
#endif
#ifndef BROKEN_UNSAVED
	savedKey = OLD;
	killed();
#endif
#ifndef BROKEN_UNCOMMITTED
	journal = commit;
	killed();
#endif
	finish();
	goto good;
launch:
	/* what a start finds, it rolls back or forward; each step may be a repetition */
	if
	:: journal == commit -> finish()
	:: journal == prepare || journal == absent ->
		i = 0;
		do
		:: i < STORES -> copy[i] = NONE; killed(); i++
		:: else -> break
		od;
		nextKey = NONE;
		assert(readable);
		killed();
		journal = absent
	:: journal == finished -> journal = absent
	fi;
good:
	/* all stores are of one key, and it is the main one */
	assert(readable);
	assert(file[0] == mainKey && file[1] == mainKey && file[2] == mainKey);
	running = false
}

init { run Host() }
