//! Networks that break, registries that are busy, and an agent that is killed: the slot becomes right in the end, or
//! stays empty.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_node_agent::{
    slot::verity,
    slots::SlotState,
    stage::{Meter, StageError},
};

use crate::{
    image::{Image, Recipe, noise, tar},
    machine::Machine,
    odd_server::{Habits, OddServer},
};

const MIB: usize = 1 << 20;

fn large() -> Image {
    Recipe::with(tar(&[("data", &noise(8 * MIB, 9))])).build()
}

fn bytes(image: &Image) -> i64 {
    i64::try_from(image.layers.iter().map(|layer| layer.bytes.len()).sum::<usize>()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let (machine, image) = (Machine::empty(), large());
    let cuts = vec![MIB as u64, 3 * MIB as u64 + 17, 7 * MIB as u64];
    let server = OddServer::start(&image, Habits { cuts, ..Habits::default() }).await;
    let staged = machine.stage(&server.reference()).await.unwrap();
    assert_eq!(staged.cost.bytes_downloaded, bytes(&image));
    let asked = server.ranges(&image.layers[2].digest);
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked.windows(2).all(|pair| pair[0] < pair[1]), "each begins where the last ended: {asked:?}");
    assert_eq!(machine.slot("b").state, SlotState::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_ranges_sends_the_beginning_again() {
    let (machine, image) = (Machine::empty(), large());
    let habits = Habits { cuts: vec![2 * MIB as u64], no_ranges: true, ..Habits::default() };
    let server = OddServer::start(&image, habits).await;
    let staged = machine.stage(&server.reference()).await.unwrap();
    assert_eq!(staged.cost.bytes_downloaded, bytes(&image), "what was known is not counted twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again_and_not_at_once() {
    let machine = Machine::empty();
    let server = OddServer::start(&large(), Habits { busy: 3, ..Habits::default() }).await;
    let begin = Instant::now();
    machine.stage(&server.reference()).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(3), "0.5 + 1 + 2 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_layer_is_asked_for_while_one_still_comes() {
    let machine = Machine::empty();
    let server = OddServer::start(&large(), Habits { holds: true, ..Habits::default() }).await;
    let reference = server.reference();
    let staged = tokio::time::timeout(Duration::from_secs(25), machine.stage(&reference)).await;
    staged.expect("no layer ends before the next one was asked for").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lies_is_found_out() {
    let machine = Machine::with_old_system().await;
    let image = large();
    let layer = &image.layers[2].digest;
    let shorter = OddServer::start(&image, Habits { shorter: true, ..Habits::default() }).await;
    machine.refuses(&shorter.reference(), "TruncatedLayer", false, &[layer, shorter.address()]).await;
    let other = OddServer::start(&image, Habits { flipped: true, ..Habits::default() }).await;
    machine.refuses(&other.reference(), "DigestMismatch", false, &[layer, "push the image again"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staging_that_is_stopped_ends_at_once_and_leaves_nothing() {
    let machine = Machine::with_old_system().await;
    let image = large();
    let server =
        OddServer::start(&image, Habits { stall_at: Some(4 * MIB as u64), ..Habits::default() }).await;
    let meter = Arc::new(Meter::default());
    let (meter_here, name) = (meter.clone(), server.reference());
    let stop = tokio::spawn(async move {
        while meter_here.progress().bytes_done < 3 << 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        meter_here.stop();
        Instant::now()
    });
    let error = machine.stage_into(&name, "b", &meter).await.unwrap_err();
    assert!(matches!(error, StageError::Stopped), "{error}");
    assert!(stop.await.unwrap().elapsed() < Duration::from_secs(5));
    let b = machine.slot("b");
    assert!(b.state == SlotState::Empty && !b.bootable, "{b:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_taken_in_a_second_than_was_allowed() {
    let (mut machine, image) = (Machine::empty(), large());
    machine.options.pull.max_bytes_per_second = Some(4 << 20);
    machine.options.pull.background = true;
    let server = OddServer::start(&image, Habits::default()).await;
    let (meter, begin) = (Arc::new(Meter::default()), Instant::now());
    machine.stage_into(&server.reference(), "b", &meter).await.unwrap();
    let least =
        Duration::from_secs_f64(f64::from(u32::try_from(bytes(&image)).unwrap()) / f64::from(4 << 20));
    assert!(begin.elapsed() >= least, "{least:?}");
    let progress = meter.progress();
    assert!(progress.bytes_done == progress.bytes_total && progress.seconds_left == Some(0), "{progress:?}");
}

/// The agent as a process, staging into slot b.
fn agent(machine: &Machine, image: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_evenkeel-agent"))
        .args(["stage", image, "--plain-http", "--slot", "b", "--disk"])
        .arg(machine.disk.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_an_agent_is_killed_the_slot_is_whole_or_empty() {
    let machine = Machine::with_old_system().await;
    let (one, two) = (large(), Recipe::with(tar(&[("data", &noise(8 * MIB, 10))])).build());
    let servers =
        [OddServer::start(&one, Habits::default()).await, OddServer::start(&two, Habits::default()).await];
    let begin = Instant::now();
    assert!(agent(&machine, &servers[1].reference()).wait().unwrap().success());
    let whole = begin.elapsed();
    // Each begins with the other image in the slot, whole or not.
    for step in 0..10 {
        let mut agent = agent(&machine, &servers[step % 2].reference());
        tokio::time::sleep(whole / 9 * u32::try_from(step).unwrap()).await;
        agent.kill().unwrap();
        agent.wait().unwrap();
        let (a, b) = (machine.slot("a"), machine.slot("b"));
        assert!(a.state == SlotState::Complete && a.default && !b.bootable, "{step}: {a:?} {b:?}");
        if b.state == SlotState::Complete {
            let region = machine.disk.slot("b").unwrap();
            let record = region.read_record().unwrap();
            assert!(verity::holds(&region, &record).unwrap(), "{step}: {record:?}");
        }
    }
    machine.stage(&servers[0].reference()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_leaves_an_empty_slot_and_the_next_one_goes_on_behind_the_layers_that_it_finished()
 {
    let machine = Machine::empty();
    let image = large();
    let server =
        OddServer::start(&image, Habits { stall_at: Some(5 * MIB as u64), ..Habits::default() }).await;
    let mut agent = agent(&machine, &server.reference());
    while server.sent() < 5 * MIB as u64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let slot = machine.disk.slot("b").unwrap().open_ro().unwrap();
    let mut byte = [0];
    while byte == [0] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        slot.read_at(3 * MIB as u64, &mut byte).unwrap();
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    let b = machine.slot("b");
    assert!(b.state == SlotState::Empty && !b.bootable, "{b:?}");
    let whole = OddServer::start(&image, Habits::default()).await;
    let staged = machine.stage(&whole.reference()).await.unwrap();
    assert!(
        whole.ranges(&image.layers[0].digest).is_empty() && whole.ranges(&image.layers[1].digest).is_empty()
    );
    assert_eq!(staged.cost.bytes_downloaded, i64::try_from(image.layers[2].bytes.len()).unwrap());
    // Of the layer that was not finished, what came is found at its place.
    assert!(staged.cost.bytes_skipped > 2 << 20, "{:?}", staged.cost);
    assert_eq!(machine.slot("b").state, SlotState::Complete);
    let fresh = Machine::empty().stage(&whole.reference()).await.unwrap();
    assert_eq!(staged.record.root_hash, fresh.record.root_hash);
}
