//! How much memory this process keeps.

/// Has all threads share one heap. By default each gets one of its own (glibc, mallopt(3)), and what
/// the short-lived threads of one restart after another have freed stays in all of them.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no safe way to tell the allocator")]
pub(super) fn share_one_heap() {
    // SAFETY: sets a number, before there is a second thread. Refused, there are more heaps.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives back what was freed. glibc keeps it for long, or not, as chance has it: two megabytes and more of a
/// diagnosis, after a crash.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no safe way to tell the allocator")]
pub(super) fn give_back() {
    // SAFETY: it locks the heap like any call of the allocator; malloc_trim(3) says that threads may call it.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give back by themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back() {}

/// Other allocators keep no heap for each thread.
#[cfg(not(target_env = "gnu"))]
pub(super) fn share_one_heap() {}
