//! One session that several gateways carried: each wrote a track of it, under an id of its own.
//!
//! Gateways know nothing of each other. What they have in common is what makes a session: who acts, on which
//! cluster, for which task ([`crate::model::SessionKey`]), and a time without a longer pause.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{AccountState, GatewayId, SessionId, SessionKey, SessionKind, Timestamp},
    store::{AccountRow, SessionView, StateWord},
};

/// What one gateway wrote of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// The gateway; none where a store has no segment.
    pub gateway: Option<GatewayId>,
    /// The session as that gateway has it.
    pub view: SessionView,
}

/// A session with all its tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeSession {
    /// All tracks in one. It has the id of the earliest.
    pub view: SessionView,
    /// The tracks, the earliest first; at least one.
    pub tracks: Vec<Track>,
}

/// A session ends after a pause of this length, unless the gateway's configuration says otherwise
/// (`sessions.idle`), which readers do not know.
pub const TRACK_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

impl WholeSession {
    /// A session of one gateway.
    #[must_use]
    pub fn of(track: Track) -> Self {
        Self { view: track.view.clone(), tracks: vec![track] }
    }

    /// Whether one of its tracks has this id.
    #[must_use]
    pub fn has(&self, session: SessionId) -> bool {
        self.tracks.iter().any(|track| track.view.session == session)
    }

    fn from_tracks(mut tracks: Vec<Track>) -> Self {
        tracks.sort_by_key(begin);
        let mut views = tracks.iter().map(|track| &track.view);
        let mut view = views.next().expect("at least one track").clone();
        views.for_each(|other| take_in(&mut view, other));
        Self { view, tracks }
    }
}

/// Puts the tracks of several gateways together, in the order in which sessions began.
///
/// Two tracks of one gateway are one session only through a track of another that meets both: by
/// itself that gateway ended one before it began the next.
#[must_use]
pub fn merge(tracks: Vec<Track>) -> Vec<WholeSession> {
    let mut by_key: BTreeMap<SessionKey, Vec<Track>> = BTreeMap::new();
    let mut sessions = Vec::new();
    for track in tracks {
        // What went round a gateway is of its node alone.
        if track.view.kind == SessionKind::Bypass {
            sessions.push(WholeSession::from_tracks(vec![track]));
        } else {
            by_key.entry(track.view.key()).or_default().push(track);
        }
    }
    sessions.extend(by_key.into_values().flat_map(merge_alike));
    sessions.sort_by_key(|session| (session.view.started, session.view.session));
    sessions
}

/// Puts tracks with one key together.
fn merge_alike(mut tracks: Vec<Track>) -> Vec<WholeSession> {
    tracks.sort_by_key(begin);
    let (mut open, mut done): (Vec<Vec<Track>>, Vec<Vec<Track>>) = (Vec::new(), Vec::new());
    for track in tracks {
        let began = track.view.started;
        let (near, past) =
            open.into_iter().partition(|group| group.iter().any(|it| lasts(it, began)));
        open = near;
        done.extend::<Vec<_>>(past);
        let meets = |other: &Track| other.gateway != track.gateway && lasts(other, began);
        let (joined, apart) = open.into_iter().partition(|group| group.iter().any(meets));
        open = apart;
        let joined: Vec<Vec<Track>> = joined;
        open.push(joined.into_iter().flatten().chain([track]).collect());
    }
    done.into_iter().chain(open).map(WholeSession::from_tracks).collect()
}

fn begin(track: &Track) -> (Timestamp, SessionId) {
    (track.view.started, track.view.session)
}

/// Whether a track that began earlier goes on at this time, or paused no longer than a session may.
fn lasts(track: &Track, time: Timestamp) -> bool {
    let pause = time.micros_since(track.view.last_activity);
    !u128::try_from(pause).is_ok_and(|pause| pause > TRACK_PAUSE_MAX.as_micros())
}

/// Adds what another gateway has of a session.
fn take_in(view: &mut SessionView, other: &SessionView) {
    view.state = match (view.state, other.state) {
        (StateWord::Incomplete, _) | (_, StateWord::Incomplete) => StateWord::Incomplete,
        (StateWord::Open, _) | (_, StateWord::Open) => StateWord::Open,
        (StateWord::Ended, StateWord::Ended) => StateWord::Ended,
    };
    view.reason = view.reason.or(other.reason);
    view.ended = view.ended.zip(other.ended).map(|(ours, theirs)| ours.max(theirs));
    view.last_activity = view.last_activity.max(other.last_activity);
    view.exchanges += other.exchanges;
    view.denied += other.denied;
    view.effects.created += other.effects.created;
    view.effects.modified += other.effects.modified;
    view.effects.deleted += other.effects.deleted;
    view.clients += other.clients;
    view.other_connections += other.other_connections;
    if view.seen.is_none() {
        view.seen.clone_from(&other.seen);
    }
    view.totals.add(&other.totals);
    take_in_account(&mut view.account, &other.account);
}

/// Any gap is a gap, else any unwitnessed is unwitnessed; the first reason of the worst stays.
fn take_in_account(account: &mut AccountRow, other: &AccountRow) {
    let severity = |state| match state {
        AccountState::Complete => 0,
        AccountState::Unwitnessed => 1,
        AccountState::Gap => 2,
    };
    if severity(other.state) > severity(account.state) {
        (account.state, account.reason) = (other.state, other.reason.clone());
    }
    account.gap_bytes += other.gap_bytes;
    account.kernel_verified &= other.kernel_verified;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SegmentId, SessionTotals};
    use crate::store::{EffectCounts, Position, PrincipalRow};

    const MINUTE: i64 = 60_000_000;

    fn track(gateway: GatewayId, subject: &str, from_minutes: i64, to_minutes: i64) -> Track {
        let at = |minutes| Timestamp::from_micros(minutes * MINUTE);
        let principal = PrincipalRow { subject: subject.into(), ..PrincipalRow::default() };
        let view = SessionView {
            session: SessionId::new(),
            state: StateWord::Ended,
            reason: None,
            cluster: "prod".into(),
            task: None,
            kind: SessionKind::Api,
            principal,
            started: at(from_minutes),
            ended: Some(at(to_minutes)),
            last_activity: at(to_minutes),
            exchanges: 2,
            denied: 1,
            effects: EffectCounts { created: 1, modified: 0, deleted: 0 },
            account: AccountRow {
                state: AccountState::Complete,
                kernel_verified: true,
                ..AccountRow::default()
            },
            totals: SessionTotals { complete: 2, request_bytes: 10, ..SessionTotals::default() },
            first: Position { segment: SegmentId::new(), offset: 0 },
            seen: None,
            clients: 0,
            other_connections: 0,
            seen_last: None,
        };
        Track { gateway: Some(gateway), view }
    }

    /// How the numbered tracks are grouped.
    fn groups(tracks: &[Track]) -> Vec<Vec<usize>> {
        let number = |track: &Track| {
            let is_it = |other: &Track| other.view.session == track.view.session;
            tracks.iter().position(is_it).expect("it is one of them")
        };
        let sessions = merge(tracks.to_vec());
        sessions.iter().map(|whole| whole.tracks.iter().map(number).collect()).collect()
    }

    #[test]
    fn tracks_of_several_gateways_meet_in_time() {
        let (a, b, c) = (GatewayId::new(), GatewayId::new(), GatewayId::new());
        for (tracks, expected) in [
            // One gateway's sessions stay what they are, however near.
            (vec![track(a, "x", 0, 10), track(a, "x", 11, 20)], vec![vec![0], vec![1]]),
            (vec![track(a, "x", 0, 10), track(b, "x", 5, 20)], vec![vec![0, 1]]),
            (vec![track(b, "x", 5, 6), track(a, "x", 0, 10)], vec![vec![1, 0]]),
            // A pause as long as a session's may be, and a longer one.
            (vec![track(a, "x", 0, 10), track(b, "x", 25, 26)], vec![vec![0, 1]]),
            (vec![track(a, "x", 0, 10), track(b, "x", 26, 27)], vec![vec![0], vec![1]]),
            (vec![track(a, "x", 0, 10), track(b, "y", 0, 10)], vec![vec![0], vec![1]]),
            // A third one links them.
            (
                vec![track(a, "x", 0, 10), track(c, "x", 35, 40), track(b, "x", 9, 30)],
                vec![vec![0, 2, 1]],
            ),
            (
                vec![track(a, "x", 0, 10), track(a, "x", 12, 20), track(b, "x", 5, 15)],
                vec![vec![0, 2, 1]],
            ),
        ] {
            assert_eq!(groups(&tracks), expected, "{tracks:#?}");
        }
    }

    #[test]
    fn a_whole_session_is_the_sum_of_its_tracks() {
        let (a, b) = (GatewayId::new(), GatewayId::new());
        let (first, mut second) = (track(a, "x", 0, 10), track(b, "x", 5, 20));
        second.view.state = StateWord::Open;
        second.view.ended = None;
        let gap = AccountRow {
            state: AccountState::Gap,
            gap_bytes: 7,
            reason: Some("lost".into()),
            kernel_verified: false,
        };
        second.view.account = gap.clone();
        let sessions = merge(vec![second.clone(), first.clone()]);
        let [whole] = &sessions[..] else { panic!("one session: {sessions:?}") };
        let view = &whole.view;
        assert_eq!((view.session, view.started), (first.view.session, first.view.started));
        assert_eq!((view.state, view.ended), (StateWord::Open, None));
        assert_eq!(view.last_activity, second.view.last_activity);
        assert_eq!((view.exchanges, view.denied, view.effects.created), (4, 2, 2));
        assert_eq!(view.account, gap);
        assert_eq!((view.totals.complete, view.totals.request_bytes), (4, 20));
        assert_eq!(whole.tracks, [first.clone(), second]);
        assert!(whole.has(first.view.session) && !whole.has(SessionId::new()));
    }
}
