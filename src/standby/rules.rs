//! Whether a followed file may be taken over, and what to do if not.

use std::path::Path;

use crate::backups::{LostChanges, MissingKey};
use crate::clock::UnixMs;
use crate::error::Error;
use crate::timelines::Relation;

/// What can be seen of a followed file from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Facts {
    /// There is no file.
    Missing,
    /// It is something else, of this kind.
    NoFile(&'static str),
    /// A file.
    File {
        /// Whether it is the database of this server itself.
        is_own: bool,
        /// Whether it begins like a database.
        is_database: bool,
        /// Whether another program than Litestream has changed it.
        was_written_to: bool,
        /// Whether Litestream was killed while it applied changes.
        is_half_applied: bool,
    },
}

/// Why the file at `path` cannot be taken over, and what to do; `None` if it can.
pub(super) fn problem(facts: &Facts, path: &Path) -> Option<String> {
    let name = path.display();
    match facts {
        Facts::Missing => Some(format!(
            "there is no {name}: name the file that Litestream follows (`litestream restore -f -o {name} REPLICA`)"
        )),
        Facts::NoFile(kind) => Some(format!(
            "{name} is {kind}: name the file that Litestream follows"
        )),
        Facts::File { is_own: true, .. } => Some(format!(
            "{name} is the database of this server itself: name the file that Litestream follows"
        )),
        Facts::File {
            is_database: false, ..
        } => Some(format!(
            "{name} is no database: name the file that Litestream follows; for a backup use `license-server restore`"
        )),
        Facts::File {
            was_written_to: true,
            ..
        } => Some(format!(
            "another program than Litestream has changed {name}: delete it with the files beside it, and let Litestream \
             restore it anew"
        )),
        Facts::File {
            is_half_applied: true,
            ..
        } => Some(format!(
            "{name} has half of a change: Litestream was killed while it applied it. Start `litestream restore -f` again, \
             which finishes it, stop it with SIGTERM, then try again"
        )),
        Facts::File { .. } => None,
    }
}

/// Why a file that these processes have open cannot be taken over.
pub(super) fn problem_of_followers(processes: &[u32], path: &Path) -> Option<String> {
    let first = processes.first()?;
    Some(format!(
        "process {first} still has {} open: make sure that the other server is down, wait two seconds for its last \
         changes, stop `litestream restore -f` (`kill {first}`), then try again",
        path.display()
    ))
}

/// Why a file whose latest date is `newest` cannot be taken over in place of the present database.
pub(super) fn problem_of_relation(
    relation: &Relation,
    newest: UnixMs,
    path: &Path,
) -> Option<String> {
    let name = path.display();
    match relation {
        Relation::Same | Relation::Continues => None,
        Relation::Precedes(later) if newest <= later.continues => Some(format!(
            "{name} was taken over already, on {}: start the server, and delete the file",
            later.began_at.rfc3339()
        )),
        Relation::Precedes(later) | Relation::Diverged(later) => Some(format!(
            "{name} comes from a server that was replaced: the database that is here took over on {}. Nothing was \
             changed: stop the other server, and delete the file; if it is the right one all the same, use \
             `license-server restore {name} --replaced-server`",
            later.began_at.rfc3339()
        )),
    }
}

/// Why a file cannot be taken over that lacks these changes of the database that is present, at `database`.
pub(super) fn problem_of_age(
    relation: &Relation,
    lost: &LostChanges,
    path: &Path,
    database: &Path,
) -> Option<String> {
    let (Relation::Same, LostChanges::Span(from, until)) = (relation, lost) else {
        return None;
    };
    let (name, database) = (path.display(), database.display());
    (from < until).then(|| {
        format!(
            "{name} is older than {database}: its newest change is from {}, that of the database from {}. Nothing was \
             changed. If {database} is the right one, start the server and delete {name}; if it is left over from \
             something else, move it away with the files whose names begin like its own, then try again",
            from.rfc3339(),
            until.rfc3339()
        )
    })
}

/// Why a file cannot be taken over without these keys.
pub(super) fn problem_of_keys(missing: &[MissingKey], data: &Path) -> Option<String> {
    let lacks = missing.iter().map(|key| match key {
        MissingKey::SigningKey(id) => format!("signing has no private key {id}"),
        MissingKey::Authority => "tls has no certificate authority".to_owned(),
        MissingKey::KnownAuthority => "tls has another certificate authority".to_owned(),
    });
    let lacks = lacks.collect::<Vec<_>>().join(", ");
    let data = data.display();
    (!lacks.is_empty()).then(|| {
        format!(
            "the keys in {data} are not those of the followed file: {lacks}. Nothing was changed: copy {data}/tls and \
             {data}/signing from the other server or from a backup of it, then try again; if they are lost, \
             `license-server restore` takes the file without them, and says what to do"
        )
    })
}

/// Whether the followed file is more recent than the database.
pub(super) fn is_newer(relation: &Relation, copy: UnixMs, present: UnixMs) -> bool {
    match relation {
        Relation::Continues => true,
        Relation::Same => copy > present,
        Relation::Precedes(_) | Relation::Diverged(_) => false,
    }
}

/// Why a server does not serve beside a followed file that cannot be read.
pub(super) fn unreadable_copy(followed: &Path, error: &Error) -> String {
    format!(
        "{0} cannot be read ({error}), so it is unknown whether this is a standby that has to be promoted. If it is one, \
         let Litestream restore the file anew; if not, delete {0}",
        followed.display()
    )
}

/// Why a standby does not serve.
pub(super) fn not_promoted(followed: &Path, database: &Path) -> String {
    let (followed, database) = (followed.display(), database.display());
    format!(
        "this is a standby: {followed} is a copy of another server's database, which is more recent than {database}. To \
         take over, stop the other server, then Litestream, then run `license-server promote`; to serve {database}, move \
         {followed} away"
    )
}
