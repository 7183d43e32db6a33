// What GNUstep's headers want of a blocks runtime that Debian does not pack.
void *_Block_copy(const void *);
void _Block_release(const void *);
