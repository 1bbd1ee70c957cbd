//! Tests of the database as a whole.

use rusqlite::ErrorCode;

use super::*;
use crate::error::Resource;

const ADD: &str = "insert into customers (name, created_at_ms) values (hex(randomblob(8)), 0)";

fn with_new_database<T>(test: impl AsyncFnOnce(Db) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        read_connections: 2,
        ..Options::in_folder(dir.path())
    };
    let db = Db::open_as_server(&options).unwrap();
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(test(db))
}

async fn count(db: &Db) -> i64 {
    db.read(|r| r.one("select count(*) from customers", [], |row| row.get(0)))
        .await
        .unwrap()
}

#[test]
fn a_second_check_of_a_connection_sees_what_another_has_written_since() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::in_folder(dir.path());
    let db = Db::open_as_server(&options).unwrap();
    let name = "insert into customers (name, created_at_ms) values (hex(randomblob(30)), 0)";
    for _ in 0..3 {
        db.write_blocking("add", |tx| tx.run(name, [])).unwrap();
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method's path is not general enough over lifetimes"
        )]
        let found = db.read_blocking(|reader| reader.integrity()).unwrap();
        assert_eq!(found, Vec::<String>::new());
    }
}

#[test]
fn reads_for_programs_share_a_transaction_and_see_what_was_committed_before() {
    with_new_database(async |db| {
        let count = |r: &Reader<'_>| -> Result<i64> {
            r.one("select count(*) from customers", [], |row| row.get(0))
        };
        for added in 1_i64..=3 {
            db.write("t.add", |tx| tx.run(ADD, [])).await.unwrap();
            assert_eq!(db.read_for_program(count).await.unwrap(), added);
        }
        // All of these wait in the queue before the first of them is awaited.
        let data_version = |r: &Reader<'_>| {
            r.one("select data_version from pragma_data_version", [], |row| {
                row.get::<_, i64>(0)
            })
        };
        let panics = db.read_for_program(move |r: &Reader<'_>| {
            assert!(count(r)? < 3, "in the reader");
            Ok(())
        });
        let (first, lost, second) = tokio::join!(
            db.read_for_program(data_version),
            panics,
            db.read_for_program(data_version)
        );
        assert_eq!(first.unwrap(), second.unwrap());
        assert!(matches!(lost, Err(Error::Internal { .. })));
        let refused = db.read_for_program(|_| Err::<(), _>(Error::not_found(Resource::Text, "")));
        assert!(matches!(refused.await, Err(Error::NotFound { .. })));
        db.close(Duration::from_secs(10));
        let stopped = db.read_for_program(count).await;
        assert!(
            matches!(stopped, Err(Error::Unavailable { .. })),
            "{stopped:?}"
        );
    });
}

#[test]
fn a_page_that_holds_every_connection_of_the_panel_keeps_no_program_waiting() {
    with_new_database(async |db| {
        let (entered, all_entered) = std::sync::mpsc::channel();
        let gate = Arc::new(std::sync::Barrier::new(3));
        let pages: Vec<_> = (0..2)
            .map(|_| {
                let (db, gate, entered) = (db.clone(), gate.clone(), entered.clone());
                std::thread::spawn(move || {
                    db.read_blocking(|_| {
                        entered.send(()).unwrap();
                        gate.wait();
                        Ok(())
                    })
                })
            })
            .collect();
        all_entered.iter().take(2).for_each(drop);
        let one = |r: &Reader<'_>| r.one("select 1", [], |row| row.get::<_, i64>(0));
        assert_eq!(db.read_for_program(one).await.unwrap(), 1);
        gate.wait();
        for page in pages {
            page.join().unwrap().unwrap();
        }
    });
}

/// Overwrites the start of the first page after its header, which only reading the file itself detects.
fn overwrite_first_page(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; 200], 100).unwrap();
}

#[test]
fn damage_is_noted_and_a_sound_file_in_its_place_does_not_clear_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::in_folder(dir.path());
    Db::open_as_server(&options)
        .unwrap()
        .close(Duration::from_secs(10));
    let db = Db::open_as_server(&options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    let sound = runtime.block_on(db.inspect()).unwrap();
    assert!(sound.found.is_empty() && db.damage().is_none());
    overwrite_first_page(db.path());
    let error = runtime.block_on(db.inspect()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(db.damage().is_some());
    // A sound file that replaced it says nothing about the database.
    let other = dir.path().join("other.sqlite3");
    let aside = Options {
        path: other.clone(),
        ..options.clone()
    };
    Db::open_as_server(&aside)
        .unwrap()
        .close(Duration::from_secs(10));
    std::fs::rename(other, db.path()).unwrap();
    let error = runtime.block_on(db.inspect()).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(db.damage().is_some());
}

#[test]
fn a_failing_write_undoes_only_itself_and_a_panic_kills_nothing() {
    with_new_database(async |db| {
        let write = || db.write("t.keep", |tx| tx.run(ADD, []));
        let undo = || {
            db.write("t.undo", |tx| {
                tx.run(ADD, [])?;
                Err::<(), _>(Error::not_found(Resource::Text, ""))
            })
        };
        let panic = || {
            db.write("t.panic", |tx| {
                tx.run(ADD, [])?;
                assert!(tx.run(ADD, []).is_err(), "in the writer");
                Ok(())
            })
        };
        let all = tokio::join!(write(), undo(), panic());
        assert!(all.0.is_ok() && all.1.is_err());
        assert!(matches!(all.2, Err(Error::Internal { .. })));
        assert_eq!(count(&db).await, 1);
        // The same, each in a transaction of its own.
        undo().await.unwrap_err();
        assert!(matches!(panic().await, Err(Error::Internal { .. })));
        assert_eq!(count(&db).await, 1);
        write().await.unwrap();
        undo().await.unwrap_err();
        assert_eq!(count(&db).await, 2);
    });
}

#[test]
fn a_dropped_caller_does_not_stop_the_writer() {
    with_new_database(async |db| {
        let mut gone = Box::pin(db.write("t.gone", |tx| tx.run(ADD, [])));
        std::future::poll_fn(|cx| {
            assert!(Future::poll(gone.as_mut(), cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(gone);
        db.write("t.next", |tx| tx.run(ADD, [])).await.unwrap();
        assert_eq!(count(&db).await, 2);
    });
}

#[test]
fn a_reader_cannot_write() {
    with_new_database(async |db| {
        let result = db.read(|r| r.list(ADD, [], |_| Ok(())).map(drop)).await;
        assert!(
            matches!(result, Err(Error::Unavailable { .. })),
            "read-only"
        );
        assert_eq!(count(&db).await, 0);
    });
}

#[test]
fn hooks_run_only_for_committed_operations() {
    with_new_database(async |db| {
        let (send, received) = std::sync::mpsc::channel();
        for keep in [true, false] {
            let send = send.clone();
            let done = db.write("t.hook", move |tx| {
                tx.after_commit(move || send.send(keep).unwrap());
                tx.run(ADD, [])?;
                keep.then_some(())
                    .ok_or_else(|| Error::not_found(Resource::Text, ""))
            });
            assert_eq!(done.await.is_ok(), keep);
        }
        drop(send);
        assert_eq!(received.iter().collect::<Vec<_>>(), [true]);
    });
}

#[test]
fn only_invalidations_and_other_processes_begin_a_new_generation() {
    with_new_database(async |db| {
        db.write("t.quiet", |tx| tx.run(ADD, [])).await.unwrap();
        let previous = db.generation();
        db.write("t.quiet", |tx| tx.run(ADD, [])).await.unwrap();
        assert_eq!(db.generation(), previous);
        db.write("t.loud", |tx| {
            tx.invalidate_caches();
            tx.run(ADD, [])
        })
        .await
        .unwrap();
        assert_eq!(db.generation(), previous + 1);
        let outside = pool::open_writer(db.path(), Synchronous::Full).unwrap();
        outside.execute(ADD, []).unwrap();
        db.write("t.quiet", |tx| tx.run(ADD, [])).await.unwrap();
        assert_eq!(db.generation(), previous + 2);
    });
}

#[test]
fn an_operation_locks_out_other_writers_before_its_first_read() {
    with_new_database(async |db| {
        let outside = pool::open_writer(db.path(), Synchronous::Full).unwrap();
        outside.busy_timeout(Duration::ZERO).unwrap();
        let rejected = db.write("t.lock", move |_| {
            let result = outside.execute_batch("begin immediate");
            Ok(result.unwrap_err().sqlite_error_code())
        });
        assert_eq!(rejected.await.unwrap(), Some(ErrorCode::DatabaseBusy));
    });
}

#[test]
fn a_write_behind_a_foreign_lock_is_refused_and_works_later() {
    with_new_database(async |db| {
        let outside = pool::open_writer(db.path(), Synchronous::Full).unwrap();
        outside.execute_batch("begin immediate").unwrap();
        let refused = db.write("t.blocked", |tx| tx.run(ADD, [])).await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })));
        outside.execute_batch("rollback").unwrap();
        db.write("t.free", |tx| tx.run(ADD, [])).await.unwrap();
        assert_eq!(count(&db).await, 1, "the refused write had no effect");
    });
}

#[test]
fn a_write_of_any_number_of_pages_is_kept_or_undone_whole() {
    const FILL: &str = "insert into pages with recursive n (i) as (select 1 union all select i + 1 from n where i < 200) \
         select i, hex(randomblob(1900)) from n";
    const CHANGE: &str = "update pages set text = hex(randomblob(1900)) where id <= ?1";
    with_new_database(async |db| {
        let table = "create table pages (id integer primary key, text text)";
        db.write("t.create", |tx| tx.run(table, [])).await.unwrap();
        db.write("t.fill", |tx| tx.run(FILL, [])).await.unwrap();
        // The old pages are kept in memory up to some number, and in a temporary file from there on.
        for pages in [1_u32, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 200] {
            let kept = db.write("t.keep", move |tx| tx.run(CHANGE, [pages])).await;
            assert_eq!(u32::try_from(kept.unwrap()), Ok(pages));
            let sum = "select sum(unicode(substr(text, 7, 1)) * id) from pages";
            let sum = |r: &Reader<'_>| r.one(sum, [], |row| row.get::<_, i64>(0));
            let before = db.read(sum).await.unwrap();
            let undone = db.write("t.undo", move |tx| {
                tx.run(CHANGE, [pages])?;
                Err::<(), _>(Error::not_found(Resource::Text, ""))
            });
            let undone = undone.await;
            assert!(
                matches!(undone, Err(Error::NotFound { .. })),
                "{pages}: {undone:?}"
            );
            assert_eq!(db.read(sum).await.unwrap(), before);
        }
    });
}
