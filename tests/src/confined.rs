//! A process without rights, for whom one system call is fatal: what it is said never to do, it would not survive.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Has `command` run without any capability, and end at once (`SIGSYS`) when it calls bpf(2).
pub fn confine(command: &mut Command) {
    let program = kill_on(libc::SYS_bpf);
    // SAFETY: the closure runs between fork and exec and makes system calls only (async-signal-safe); what
    // they point to lives in the closure.
    unsafe { command.pre_exec(move || give_up(&program)) };
}

fn give_up(program: &[libc::sock_filter]) -> io::Result<()> {
    let header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let none = [[0_u32; 3]; 2];
    let length = u16::try_from(program.len()).expect("a few instructions");
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: no pointers in the first; the second reads one header and two sets, the last the program, all of
    // which live until the calls return.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into(),
            libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter).into(),
        ]
    };
    if results.iter().any(|result: &libc::c_long| *result != 0) {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Kills the process at this system call and allows all others. Calls of another architecture's numbers are
/// not told apart: the programs of the rig make none.
fn kill_on(call: libc::c_long) -> [libc::sock_filter; 4] {
    let call = u32::try_from(call).expect("system calls have small numbers");
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("codes are small"),
        jt: 0,
        jf: 0,
        k,
    };
    // `nr` is the first field of `struct seccomp_data`.
    let load = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let mut is_it = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call);
    is_it.jf = 1;
    [
        load,
        is_it,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]
}

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn the_fatal_call_is_fatal_and_capabilities_are_gone() {
        let mut command = Command::new("grep");
        command.args(["-c", "^Cap[EP][fr][fm]:\t0*$", "/proc/self/status"]);
        confine(&mut command);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n", "{output:?}");

        let mut command = Command::new("true");
        confine(&mut command);
        // SAFETY: one system call, which does not return.
        unsafe {
            command.pre_exec(|| {
                libc::syscall(libc::SYS_bpf, 0, 0, 0);
                Ok(())
            });
        }
        assert_eq!(command.status().unwrap().signal(), Some(libc::SIGSYS));
    }
}
