//! Jobs that take over keys, settings and certificates that were changed beside the server.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::Interval;

use crate::app::App;
use crate::error::Error;
use crate::signing_keys;

/// Reloads the current signing key whenever the database's generation has changed.
pub(super) async fn reload_when_changed(app: &App, mut ticks: Interval) {
    let mut known = 0;
    loop {
        ticks.tick().await;
        let generation = app.db.generation();
        if generation == known {
            continue;
        }
        // Reloads the settings now, not at the next call, so that a change of the API key is logged at once.
        if let Err(error) = app.program_settings.shared(&app.db).await {
            log::debug!("could not read the product settings: {error}");
        }
        let (db, signer, data) = (
            app.db.clone(),
            Arc::clone(&app.signer),
            app.settings.data_folder(),
        );
        let now = app.clock.now().wall;
        let refreshed =
            spawn_blocking(move || signing_keys::refresh(&db, &data, &signer, now)).await;
        match refreshed {
            Ok(Ok(())) => known = generation,
            Ok(Err(Error::Unavailable { .. } | Error::Damaged { .. })) => {
                log::debug!("the signing key is unchanged: the database cannot be read");
            }
            Ok(Err(error)) => log::error!("the signing key is unchanged: {error}"),
            Err(error) => log::error!("reloading the signing key failed: {error}"),
        }
    }
}

/// Reloads and renews the certificate, both by the system clock, since clients judge a certificate by theirs: the
/// trusted date may be far ahead.
pub(super) async fn maintain_certificate(app: &App, mut ticks: Interval) {
    let Some(certificates) = &app.certificates else {
        return std::future::pending().await;
    };
    let reload = async {
        loop {
            ticks.tick().await;
            certificates.refresh(app.clock.system_date());
        }
    };
    tokio::select! {
        () = reload => {}
        () = certificates.run_acme(|| app.clock.system_date()) => {}
    }
}
