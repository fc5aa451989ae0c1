//! Tempting shortcuts. Each drops one detail of the protocols, and each must be caught.

/// One detail left out. The first eight are those of protocols.md section 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// M1: a node unlinks when it applies the delete, whatever it holds by then.
    UnlinkOnDelete,
    /// M2: a node remembers only the newest ticket of a file.
    NewestPinOnly,
    /// M3: a ticket newer than what the node has applied counts as closed.
    NewTicketsAreClosed,
    /// M4: a commit is accepted after its ticket was closed.
    CommitAfterClose,
    /// M5: a delete is decided by the leader and not checked again at apply.
    DeleteUnchecked,
    /// M6: a file that is already there is acknowledged without a pin.
    StoreWithoutPin,
    /// M7: a copy is counted after its repair ticket was closed.
    AddAfterClose,
    /// M8: a surplus copy is dropped without counting again at apply.
    DropUnchecked,
    /// M9: a manifest is restored without asking whether its blobs are still linked.
    RestoreUnchecked,
    /// M10: a node that takes over a state snapshot starts with empty pins.
    InstallForgetsPins,
    /// M11: a node that takes over a state snapshot does not look for what it need not keep any more.
    InstallWithoutSweep,
    /// M12: a delete takes a blob that was rescued and condemned again since it was decided.
    DeleteCondemnedAgain,
    /// M13: a node is removed while it holds counted copies.
    RemoveWithPlacements,
    /// M14: a touch is acknowledged and does not start the grace again.
    TouchWithoutRescue,
    /// M15: a commit leaves a condemned blob condemned.
    CommitWithoutRescue,
    /// M16: a manifest is accepted without counting the live copies of its blobs.
    PutWithoutCopies,
    /// M17: a state snapshot older than what the node has applied is taken over.
    InstallOlderState,
    /// M18: a commit counts copies on a node that was removed.
    CommitCountsRemoved,
    /// M19: a repair that ends after the blob was deleted brings its record back.
    AddRevivesDeleted,
    /// M20: a link expires although a deleted manifest can still be restored.
    ExpiryIgnoresDeleted,
}
