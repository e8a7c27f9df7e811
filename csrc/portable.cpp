// What the headers of newer compilers ask of the system, for systems that do not have it yet.
#include <new>

extern "C" {
// glibc 2.32: whether the process has one thread. No is always safe.
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}

namespace std {
// libstdc++ of GCC 11.
[[noreturn]] __attribute__((visibility("hidden"))) void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std
