//! The one round of an actor in a staged scenario: it sleeps until its cue, makes its calls, and sleeps again
//! until all have made theirs. Who waits uses no CPU.

use super::*;
use crate::board::Cue;

impl Racer<'_> {
    /// Everything between two preparations of the files.
    pub(super) fn staged_pass(&mut self, pass: u64) -> Result<(), Ended> {
        let (plan, board, me) = (self.part.plan, self.part.board, self.part.me);
        let mut contents = plan.contents(pass);
        self.started = Instant::now();
        self.plan_batch(pass, 0, 1, &contents);
        self.fill_buffers(0);
        board.await_cue(me, Cue::Start)?;
        board.called(me);
        if self.leads() {
            self.invalidate(0, 0);
        } else {
            for k in 0..self.batch.rounds[0].steps.len() {
                self.step(0, 0, k);
            }
        }
        board.returned(me, self.last.errno);
        board.await_cue(me, Cue::Judge)?;
        self.judge_batch(pass, 0..1, &mut contents)?;
        self.pass_done(1, true)
    }
}
