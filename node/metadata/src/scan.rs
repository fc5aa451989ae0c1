//! Small helpers over [`MetadataView`], shared by `apply`, `query` and `invariants`.

use std::ops::ControlFlow;

use crate::codec::Record;
use crate::view::{MetadataView, ViewError};

/// The record at `key`.
pub(crate) fn load<R: Record>(view: &dyn MetadataView, key: &[u8]) -> Result<Option<R>, ViewError> {
    match view.get(key)? {
        Some(value) => Ok(Some(R::decode(key, &value)?)),
        None => Ok(None),
    }
}

/// Whether there is anything at `key`.
pub(crate) fn exists(view: &dyn MetadataView, key: &[u8]) -> Result<bool, ViewError> {
    Ok(view.get(key)?.is_some())
}

/// Sees a key and its value, and may fail.
type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, ViewError> + 'a;

/// [`MetadataView::scan`] with a visitor that may fail.
pub(crate) fn visit(
    view: &dyn MetadataView,
    prefix: &[u8],
    after: Option<&[u8]>,
    visitor: &mut Visitor<'_>,
) -> Result<(), ViewError> {
    let mut failure = None;
    view.scan(prefix, after, &mut |key, value| match visitor(key, value) {
        Ok(flow) => flow,
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// The first key that starts with `prefix`.
pub(crate) fn first_key(
    view: &dyn MetadataView,
    prefix: &[u8],
) -> Result<Option<Vec<u8>>, ViewError> {
    let mut first = None;
    view.scan(prefix, None, &mut |key, _| {
        first = Some(key.to_vec());
        ControlFlow::Break(())
    })?;
    Ok(first)
}

/// Up to `limit` items made of the pairs under `prefix`, strictly after `after`; `make` skips a pair with `None`.
pub(crate) fn page<T>(
    view: &dyn MetadataView,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
    mut make: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, ViewError>,
) -> Result<Vec<T>, ViewError> {
    let mut items = Vec::new();
    if limit == 0 {
        return Ok(items);
    }
    visit(view, prefix, after, &mut |key, value| {
        items.extend(make(key, value)?);
        Ok(if items.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(items)
}
