//! The head: how far the store is known to have come.

use super::{FirstBad, HeadFound, Verifier};
use crate::{model::SegmentId, store::format::Mark};

impl Verifier {
    /// Whether the record that ends here is the one with which the head's state ended.
    pub(super) fn at_head(&mut self, segment: SegmentId, mark: Mark) -> Result<(), String> {
        let Some((head, _)) = &self.head else { return Ok(()) };
        let says = &head.state;
        if (says.segment, says.bytes) != (segment, mark.offset) {
            return Ok(());
        }
        if (says.records, says.hash) == (mark.records, mark.hash) {
            self.report.head = HeadFound::Reached;
            return Ok(());
        }
        // Every segment begins with what leads to its key, so that by now the head's is known.
        if let Err(why) = head.is_signed(&self.trust) {
            self.report.head = HeadFound::Unusable(why);
            self.head = None;
            return Ok(());
        }
        Err("the store is not the one whose head was noted: it was written anew".into())
    }

    /// A store that does not come to its head is an older state of itself.
    pub(super) fn reaches_head(&mut self) {
        let Some((head, file)) = self.head.take() else { return };
        if self.report.head == HeadFound::Reached || self.report.first_bad.is_some() {
            return;
        }
        if self.is_partial {
            self.report.head = HeadFound::Unusable("it speaks of a whole store".into());
            return;
        }
        if let Err(why) = head.is_signed(&self.trust) {
            self.report.head = HeadFound::Unusable(why);
            return;
        }
        if self.report.deleted_segments.iter().any(|run| run.spans(head.state.segment)) {
            self.report.head =
                HeadFound::Unusable("the segment that it speaks of was deleted".into());
            return;
        }
        let last = self.report.segments.iter().rfind(|report| report.segment <= head.state.segment);
        let (file, offset) = last.map_or((file, 0), |last| (last.file.clone(), last.bytes));
        let (segment, bytes) = (head.state.segment, head.state.bytes);
        let why = format!(
            "the store ends before what its head says (segment {segment}, {bytes} bytes, {}): rolled back",
            head.state.time
        );
        self.report.first_bad = Some(FirstBad { file, offset, why });
    }
}
