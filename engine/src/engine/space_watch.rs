//! Looks at the free space of the disk while appends arrive. What it means is decided in `log/space.rs`.

use std::{rc::Rc, time::Duration};

use super::Inner;
use crate::error::Fault;

/// While appends arrive the disk is looked at this often, and sooner when what was allowed is half used up.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// While client data is refused and nobody tries: the operator shall hear soon that there is room.
const LOW_LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// While nothing is appended: for metrics, and since somebody else may fill the disk.
const IDLE_LOOK_INTERVAL: Duration = Duration::from_secs(10);

impl Inner {
    pub(super) async fn look_at_space(&self) -> Result<(), Fault> {
        let dir = &self.config.data_dir;
        let found = self.shared.rt.disk_space(dir).await;
        let found = found.map_err(|error| Fault::io("read the free space of", dir, error))?;
        self.shared.space_found(found);
        Ok(())
    }

    pub(super) async fn run_space_watch(self: Rc<Self>) {
        let space = &self.shared.space;
        let rt = &self.shared.rt;
        let mut failed = false;
        while space.is_watched() {
            let arrived = space.arrived.listen();
            if !space.is_used() {
                let interval = match space.is_low() {
                    true => LOW_LOOK_INTERVAL,
                    false => IDLE_LOOK_INTERVAL,
                };
                rt.timeout(interval, arrived).await;
            }
            let pressing = space.pressing.listen();
            match self.look_at_space().await {
                Ok(()) => failed = false,
                // Said once; what was found last holds.
                Err(fault) if !failed => {
                    failed = true;
                    tracing::warn!(%fault, "cannot tell how much space is left");
                }
                Err(_) => {}
            }
            rt.timeout(LOOK_INTERVAL, pressing).await;
        }
    }
}
