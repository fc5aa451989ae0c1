//! Lists: tags and repositories.

use metadata::query;
use oci::{Page, RepositoryName, Tag};

use crate::error::RegistryError;
use crate::{Caller, Registry, Result, Seen};

/// One page of a list, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOf<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Whether there are more after the last one.
    pub more: bool,
}

impl<T> PageOf<T> {
    /// A page of `limit` entries out of a list that was read one entry further. A page of none is the last one: the
    /// spec wants no link after it.
    pub(crate) fn cut(mut items: Vec<T>, limit: usize) -> PageOf<T> {
        let more = limit > 0 && items.len() > limit;
        items.truncate(limit);
        PageOf { items, more }
    }
}

impl Registry {
    /// Tags of a repository, in the order of their bytes (end-8). At most `RegistryOptions::page_max` at once.
    ///
    /// # Errors
    /// `RepositoryUnknown`, `Unavailable`.
    pub async fn tags(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        page: &Page,
    ) -> Result<Seen<PageOf<Tag>>> {
        let limit = page.limit_within(self.options.page_max);
        let last = page.last.as_deref();
        let seen = self
            .read_names(caller, |view| {
                query::tags(view, repository, last, limit + 1)
            })
            .await?;
        let tags = seen.value.ok_or(RegistryError::RepositoryUnknown)?;
        Ok(Seen {
            revision: seen.revision,
            value: PageOf::cut(tags, limit),
        })
    }

    /// Repositories, in the order of their bytes (`_catalog`). At most `RegistryOptions::page_max` at once.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn catalog(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<Seen<PageOf<RepositoryName>>> {
        let limit = page.limit_within(self.options.page_max);
        let last = page.last.as_deref();
        let seen = self
            .read_names(caller, |view| query::repositories(view, last, limit + 1))
            .await?;
        Ok(Seen {
            revision: seen.revision,
            value: PageOf::cut(seen.value, limit),
        })
    }
}
