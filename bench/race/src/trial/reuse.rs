//! Whether freed blocks really came to belong to another file: the victim's blocks before and after a pass
//! against those that the reusers got.

use super::*;

impl Lead<'_> {
    /// Device blocks of the raced file, where the scenario reuses them and the filesystem has such a thing.
    pub(super) fn blocks(&mut self) -> Result<Option<BTreeSet<u64>>, RaceError> {
        if self.plan.reuse.is_empty() {
            return Ok(None);
        }
        let size = self.plan.files[usize::from(self.plan.on)].size;
        blocks(self.stage, self.plan.on, size, self.plan.block())
    }

    /// Lets the reusers allocate what the pass has freed, and counts what they got.
    pub(super) fn reuse(
        &mut self,
        pass: u64,
        before: Option<BTreeSet<u64>>,
        contents: &mut [Content],
    ) -> Result<(), RaceError> {
        let Some(before) = before else { return Ok(()) };
        let left = self.blocks()?.unwrap_or_default();
        let freed: BTreeSet<u64> = before.difference(&left).copied().collect();
        // No more than what was freed, or a filled-up filesystem would have no room for it.
        let most = freed.len() as u64 * self.plan.block();
        for (i, (_, ops)) in self.plan.reuse.iter().enumerate() {
            let generation = self.plan.reuse_generation(pass, i);
            for op in ops {
                let call = match self.plan.call(op, &self.plan.chunk(0)) {
                    Call::Write {
                        file,
                        at,
                        len,
                        direct,
                    } => Call::Write {
                        file,
                        at,
                        len: len.min(most),
                        direct,
                    },
                    call => call,
                };
                let written = self.verifier.carry_out(&call, generation)?;
                if let Call::Write { file, at, .. } = call {
                    contents[usize::from(file)].apply(Change::Overwrite {
                        at,
                        len: written,
                        file,
                        generation,
                    });
                    let size = contents[usize::from(file)].size();
                    let got =
                        blocks(self.stage, file, size, self.plan.block())?.unwrap_or_default();
                    let reused = got.intersection(&freed).count() as u64;
                    let all = self.evidence.reused_blocks.get_or_insert(0);
                    *all += reused;
                    self.board.reused().store(*all, SeqCst);
                }
            }
        }
        Ok(())
    }
}

/// Device blocks (numbers of `block` bytes) under the first `size` bytes of a file.
fn blocks(
    stage: &mut dyn Stage,
    file: FileId,
    size: u64,
    block: u64,
) -> Result<Option<BTreeSet<u64>>, RaceError> {
    let Some(extents) = stage.blocks(file, 0..size)? else {
        return Ok(None);
    };
    Ok(Some(
        extents
            .into_iter()
            .flat_map(|(_, at, len)| at / block..(at + len).div_ceil(block))
            .collect(),
    ))
}
