//! Hook: `tp_btf/sched_process_exit(struct task_struct *p, …)`.
//!
//! Context: the thread that ends; it is `current`. Later kernels have a second argument.
//! Floor: 5.5. Where refused: nothing is told of the end of a process; its sockets' ends are.

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use recorder_ebpf::kind;

use crate::{maps::OWNERS, ring::emit_process};

/// Tells of the end of a process that owns sockets, by the end of its first thread.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(_: BtfTracePointContext) -> i32 {
    // SAFETY: the helper has no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let (tgid, pid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
    if tgid != pid {
        return 0;
    }
    let Some(role) = OWNERS.get_ptr(tgid) else { return 0 };
    // SAFETY: the entry may be given to another process meanwhile, and then tells that one's role.
    let role = unsafe { *role };
    let _ = OWNERS.remove(tgid);
    emit_process(kind::EXIT, [tgid, role], role, tgid);
    0
}
