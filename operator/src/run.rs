//! Puts the parts together, and takes them apart in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use evenkeel_crds::ManagedOSImage;
use evenkeel_registry::RegistryOptions;
use futures::{StreamExt as _, future};
use kube::{
    Api,
    runtime::{
        Controller,
        controller::{Config, Error},
        watcher,
    },
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    api::{Clients, with_causes},
    args::Args,
    channel,
    context::{Context, Memories},
    drain::OwnPod,
    events::Recorder,
    gates::Book,
    guarded::Guarded,
    lease::{Ended, Lease},
    lifecycle::Publishing,
    metrics::Metrics,
    reconcile::{ReconcileError, after_error, reconcile},
    resolve,
    seen::Seen,
    serve::{Told, serve},
    watch::{Patience, unwatched},
};

/// Image objects are looked at one after the other: two that share nodes must not decide at the same time.
const CONCURRENCY: u16 = 1;
/// Writes of our own and of agents come in bursts; they are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Runs until a signal says to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let me = args.identity.clone().unwrap_or_else(|| format!("evenkeel-operator-{}", uuid::Uuid::new_v4()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity = me, "starting");
    let told = Told { metrics: Arc::new(Metrics::default()), ready: Arc::new(AtomicBool::new(false)) };
    let clients = Clients::connect(told.metrics.requests()).await;
    let clients = clients.context("find the API server: is KUBECONFIG right?")?;
    serve(args.metrics_addr, told.clone()).await?;

    let images: Api<Guarded<ManagedOSImage>> = Api::all(clients.main.clone());
    let controller = Controller::new(images, watcher::Config::default());
    let seen = Arc::new(Seen::watch(&clients.main, &args.namespace, controller.store()));
    tokio::select! {
        () = seen.ready() => {}
        () = stopped(stop.clone()) => return Ok(()),
    }
    told.ready.store(true, Ordering::Relaxed);

    let mut lease = Lease::new(clients.main.clone(), &args.namespace, &me, args.lease_seconds);
    tokio::select! {
        () = lease.acquire() => {}
        () = stopped(stop.clone()) => return Ok(()),
    }
    tracing::info!("this replica has the lease and acts");
    told.metrics.leads(true);

    let own_pod = OwnPod { namespace: args.namespace, name: me.clone() };
    let context = Arc::new(Context {
        clients: clients.clone(),
        seen,
        metrics: told.metrics,
        recorder: Recorder::new(clients.main, me),
        leadership: lease.leadership(),
        registry: RegistryOptions {
            docker_config: args.docker_config,
            ca_file: args.ca_file,
            limits: resolve::limits(),
            ..RegistryOptions::default()
        },
        own_pod,
        own_node: args.node_name,
        memories: Memories::default(),
        book: Book::default(),
        lifecycle: Publishing::new(args.lifecycle_conditions),
    });
    // The lease is kept until the last look has ended, and only then given back.
    let (quiet, quiet_seen) = watch::channel(false);
    let channels = channel::follow(Arc::clone(&context), stopped(stop.clone()));
    let acting = future::join(act(controller, context, stop), channels);
    tokio::pin!(acting);
    tokio::select! {
        _ = &mut acting => {}
        ended = lease.hold(quiet_seen.clone()) => {
            debug_assert_eq!(ended, Ended::Lost, "nobody asked for its release yet");
            anyhow::bail!("the lease is lost: this process ends, so that nothing is decided twice");
        }
    }
    quiet.send_replace(true);
    lease.hold(quiet_seen).await;
    tracing::info!("stopped");
    Ok(())
}

async fn act(
    controller: Controller<Guarded<ManagedOSImage>>,
    context: Arc<Context>,
    stop: watch::Receiver<bool>,
) {
    let changes = context.seen.changes();
    controller
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .trigger_backoff(Patience::default())
        .reconcile_all_on(changes)
        .graceful_shutdown_on(stopped(stop))
        .run(reconcile, |object, error, context| after_error(&object, error, &context), context)
        .for_each(|outcome| {
            if let Err(error) = outcome {
                note(&error);
            }
            std::future::ready(())
        })
        .await;
}

/// Errors of looks are told where they are counted; what is left are those of the watch.
fn note(error: &Error<ReconcileError, watcher::Error>) {
    match error {
        Error::ReconcilerFailed(..) => {}
        Error::ObjectNotFound(object) => tracing::debug!(image = object.name, "is gone"),
        Error::QueueError(error) => unwatched("ManagedOSImage", error),
        other @ Error::RunnerError(_) => {
            tracing::warn!(error = with_causes(other), "the queue of image objects");
        }
    }
}

fn stop_on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let (sender, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop: finishing what is under way");
        sender.send_replace(true);
        // The receivers must see a sender for as long as they wait.
        std::future::pending::<()>().await;
    });
    Ok(stop)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender lives as long as the process.
    let _ = stop.wait_for(|stop| *stop).await;
}
