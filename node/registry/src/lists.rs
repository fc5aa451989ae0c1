//! Lists: tags and repositories.

use bytes::Bytes;
use metadata::query::{self, ListRevision};
use metadata::view::ViewError;
use oci::{Page, RepositoryName, Tag};
use serde_json::json;

use crate::error::RegistryError;
use crate::pages::{ListPage, Part};
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
    ) -> Result<Seen<ListPage>> {
        let part = self.part(page);
        let seen = self
            .read_names(caller, |view| {
                let Some(list) = query::tag_list(view, repository)? else {
                    return Ok(None);
                };
                let render = |part: &Part| {
                    let tags =
                        query::tags(view, repository, part.after.as_deref(), part.limit + 1)?;
                    Ok(rendered(
                        tags.unwrap_or_default(),
                        part.limit,
                        Tag::as_str,
                        |tags| json!({ "name": repository.as_str(), "tags": tags }),
                    ))
                };
                self.kept_or_rendered(list, part, render).map(Some)
            })
            .await?;
        Ok(Seen {
            revision: seen.revision,
            value: seen.value.ok_or(RegistryError::RepositoryUnknown)?,
        })
    }

    /// Repositories, in the order of their bytes (`_catalog`). At most `RegistryOptions::page_max` at once.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn catalog(&self, caller: &Caller, page: &Page) -> Result<Seen<ListPage>> {
        let part = self.part(page);
        self.read_names(caller, |view| {
            let render = |part: &Part| {
                let names = query::repositories(view, part.after.as_deref(), part.limit + 1)?;
                Ok(rendered(
                    names,
                    part.limit,
                    RepositoryName::as_str,
                    |names| json!({ "repositories": names }),
                ))
            };
            self.kept_or_rendered(query::catalog(view)?, part, render)
        })
        .await
    }

    fn part(&self, page: &Page) -> Part {
        Part {
            after: page.last.clone(),
            limit: page.limit_within(self.options.page_max),
        }
    }

    /// `list` and what `render` reads must come from one view.
    fn kept_or_rendered(
        &self,
        list: ListRevision,
        part: Part,
        render: impl FnOnce(&Part) -> std::result::Result<ListPage, ViewError>,
    ) -> std::result::Result<ListPage, ViewError> {
        if let Some(page) = self.pages.get(&list, &part) {
            return Ok(page);
        }
        let page = render(&part)?;
        self.pages.put(list, part, page.clone());
        Ok(page)
    }
}

/// The JSON that `body` makes of the first `limit` of `items`.
fn rendered<T>(
    items: Vec<T>,
    limit: usize,
    text: impl Fn(&T) -> &str,
    body: impl FnOnce(&[&str]) -> serde_json::Value,
) -> ListPage {
    let page = PageOf::cut(items, limit);
    let texts: Vec<&str> = page.items.iter().map(text).collect();
    let last = texts.last().filter(|_| page.more);
    ListPage {
        last: last.map(|last| (*last).to_owned()),
        body: Bytes::from(body(&texts).to_string()),
    }
}
