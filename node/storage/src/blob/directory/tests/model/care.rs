//! What happens to copies behind the back of the store, and what looking after them does about it.

use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use super::super::blob_path;
use super::reference::Rot;
use super::run::Run;
use crate::blob::{BlobStore, Quarantined, Verified};
use crate::contract::blob::digest;

impl Run {
    /// The disk loses or changes the file of a blob.
    pub(super) fn rot(&mut self) {
        let body = self.body();
        let path = blob_path(&self.store(), &digest(&self.bodies[body]));
        let length = self.bodies[body].len();
        let is_flip = self.random.below(2) == 0 && length > 0;
        let at = self.random.below(length.max(1));
        let Some(copy) = self.model.copies.get_mut(&body) else {
            return;
        };
        if !copy.is_file || !copy.is_whole() {
            return;
        }
        if is_flip {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .expect("there");
            let wrong = [!self.bodies[body][at]];
            file.write_all_at(&wrong, at as u64).expect("written");
            copy.rot = Rot::Flipped;
        } else {
            std::fs::remove_file(&path).expect("there");
            copy.rot = Rot::Missing;
        }
        let rot = copy.rot;
        self.note(format!("rot of body {body}: {rot:?}"));
    }

    pub(super) async fn quarantine(&mut self) {
        let body = self.body();
        let digest = digest(&self.bodies[body]);
        self.note(format!("quarantine body {body}"));
        let verified = self
            .store()
            .verify(&digest, &|_| Box::pin(async {}))
            .await
            .expect("verified");
        let done = self.store().quarantine(&digest).await.expect("decided");
        let rot = self.model.copies.get(&body).map(|copy| copy.rot);
        let wanted = match rot {
            None => Quarantined::Absent,
            Some(Rot::None) => Quarantined::Sound,
            Some(Rot::Flipped) => Quarantined::Moved,
            Some(Rot::Missing) => Quarantined::Missing,
        };
        assert_eq!(done, wanted, "body {body}");
        let fits = match verified {
            Verified::Absent => rot.is_none(),
            Verified::Sound(_) => rot == Some(Rot::None),
            Verified::Damaged(_) => rot == Some(Rot::Flipped),
            Verified::Missing => rot == Some(Rot::Missing),
        };
        assert!(fits, "body {body} is {rot:?}, and verified as {verified:?}");
        if matches!(done, Quarantined::Moved | Quarantined::Missing) {
            self.model.copies.remove(&body);
            self.model.quarantined += u64::from(done == Quarantined::Moved);
            self.count("moved");
        }
    }

    pub(super) async fn adopt(&mut self) {
        let (body, ticket) = (self.body(), self.ticket());
        self.note(format!("adopt body {body} with {ticket:?}"));
        let adopted = self
            .store()
            .adopt(&digest(&self.bodies[body]), ticket)
            .await;
        let could = self.model.adopt(body, ticket);
        assert_eq!(adopted.expect("asked").is_some(), could, "body {body}");
        if could {
            self.count("adopt");
        }
    }

    /// A file appears that no record knows, or is thrown away.
    pub(super) async fn orphan(&mut self) {
        let body = self.body();
        let digest = digest(&self.bodies[body]);
        let is_file = (self.model.copies.get(&body)).is_some_and(|copy| copy.is_file);
        if self.random.below(2) == 0 {
            self.note(format!("discard the orphan of body {body}"));
            let done = self.store().discard_orphan(&digest).await.expect("decided");
            assert_eq!(
                done,
                !is_file && self.model.orphans.contains(&body),
                "body {body}"
            );
            if done {
                self.model.orphans.remove(&body);
                self.model.trash.insert(body, true);
                self.count("trashed");
            }
        } else if !is_file {
            self.note(format!("a file appears for body {body}"));
            let path = blob_path(&self.store(), &digest);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
            std::fs::write(&path, &self.bodies[body]).expect("written");
            self.model.orphans.insert(body);
        }
    }

    pub(super) async fn empty_trash(&mut self) {
        self.note("empty the trash".to_owned());
        let later = SystemTime::now() + Duration::from_secs(2 * 86_400);
        let gone = self
            .store()
            .empty_trash(later, 1000)
            .await
            .expect("emptied");
        assert_eq!(gone.files, self.model.trash.len() as u64);
        self.model.trash.clear();
    }
}
