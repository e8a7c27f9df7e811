// For a library that is built on a newer system than it runs on: nothing newer than glibc 2.28 is asked for.
#pragma once

#include <cstddef>

// Streams are instantiated here, and not taken from a libstdc++ that may lack what GCC 9 added to it. Its first header
// sets this without asking, so that header comes before.
#undef _GLIBCXX_EXTERN_TEMPLATE
#define _GLIBCXX_EXTERN_TEMPLATE 0

#if defined(__x86_64__) && defined(__GLIBC__)
// glibc 2.29 gave these new versions, which differ only in what they do to errno.
__asm__(".symver exp,exp@GLIBC_2.2.5");
__asm__(".symver log,log@GLIBC_2.2.5");
__asm__(".symver pow,pow@GLIBC_2.2.5");
#endif
