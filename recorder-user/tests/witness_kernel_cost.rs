//! Every program stays within its budget of instructions, and its cost can be measured.

use recorder_user::witness::{MeasureCostError, measure};

#[test]
fn each_program_stays_within_its_budget() {
    let costs = match measure(None) {
        Ok(costs) => costs,
        // The only excuses: no object in this build, or no rights.
        Err(MeasureCostError::Load(error)) => {
            let why = format!("{error:?}");
            assert!(why.contains("NotEmbedded") || why.contains("PermissionDenied"), "{why}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(costs.len(), 14);
    for cost in &costs {
        if cost.error.is_some() {
            continue;
        }
        let proved = cost.verified_instructions.expect("kernel 5.16");
        assert!(proved > 0 && proved <= cost.budget_instructions, "{cost:?}");
    }
    // The load went through the hooks that every socket of the node meets.
    for hook in ["sock_send_length", "sock_recv_length", "inet_sock_set_state"] {
        let cost = costs.iter().find(|cost| cost.hook == hook).expect("it is tried");
        if cost.error.is_none() {
            assert!(cost.foreign.runs >= 1_000 && cost.chosen.runs >= 1_000, "{cost:?}");
            assert!(cost.foreign.ns_per_run > 0);
        }
    }
}
