use super::*;
use crate::api::HardwareRow;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn traffic(packets: u64) -> TrafficRow {
    TrafficRow { packets, bytes: 100 * packets }
}

/// A service with two backends that have carried so many packets each, half of them in hardware.
fn sample(packets: [u64; 2], dropped: u64) -> Sample {
    let backend = |number: usize| BackendRow {
        service: "web".to_owned(),
        backend: format!("10.0.1.1{number}:8080"),
        state: "active".to_owned(),
        original: traffic(packets[number]),
        hardware: HardwareRow { original: traffic(packets[number] / 2), reply: TrafficRow::default() },
        ..BackendRow::default()
    };
    let all = packets.iter().sum();
    let service = ServiceRow {
        name: "web".to_owned(),
        backends: 2,
        backends_active: 1,
        connections: 7,
        opened: all / 10,
        original: traffic(all),
        hardware: HardwareRow { original: traffic(all / 2), reply: TrafficRow::default() },
        ..ServiceRow::default()
    };
    let drop = |reason: &str, packets| DropRow { reason: reason.to_owned(), packets, ..DropRow::default() };
    Sample {
        services: vec![service],
        backends: vec![backend(0), backend(1)],
        workers: vec![WorkerRow { polls: all, polls_empty: all / 4, capacity: 100, ..WorkerRow::default() }],
        drops: vec![drop("no_service", dropped), drop("no_route", 0)],
        offload: OffloadRow { engine: "template".to_owned(), ..OffloadRow::default() },
    }
}

fn view() -> View {
    View::new(&sample([1000, 1000], 5), &sample([2000, 9000], 9), Duration::from_secs(2))
}

#[test]
fn rates_are_what_counters_grew_by() {
    let view = view();
    assert_eq!((view.rate.packets_per_second, view.rate.bits_per_second), (4500, 8 * 450_000));
    assert_eq!(view.rate.hardware_share, Share { parts_per_million: 500_000 });
    assert_eq!((view.opened_per_second, view.dropped_per_second, view.connections), (450, 2, 7));
    assert_eq!(view.workers[0].busy_polls, Share { parts_per_million: 750_000 });
    let busiest: Vec<_> = view.backends.iter().map(|row| row.rate.packets_per_second).collect();
    assert_eq!(busiest, [4000, 500]);
    let dropped: Vec<_> = view.drops.iter().map(|row| (row.reason.as_str(), row.packets)).collect();
    assert_eq!(dropped, [("no_service", 9)], "what has not happened is not shown");
}

/// Newcomers and a Millrace that was restarted have no rates yet.
#[test]
fn nothing_is_made_of_what_was_not_seen() {
    let second = Duration::from_secs(1);
    let fresh = View::new(&Sample::default(), &sample([1000, 1000], 5), second);
    assert!(fresh.services[0].rate.packets_per_second == 0 && fresh.drops[0].packets_per_second == 0);
    let restarted = View::new(&sample([1000, 1000], 5), &sample([10, 10], 0), second);
    assert_eq!((restarted.rate, restarted.opened_per_second), (Rate::default(), 0));
}

#[test]
fn text_and_json_have_all_of_it() {
    let text = view().text();
    for part in ["4.50k", "no_service", "10.0.1.11:8080", "1/2", "50.0%"] {
        assert!(text.contains(part), "no {part}:\n{text}");
    }
    let json = serde_json::to_value(view()).expect("plain rows");
    assert_eq!(json["services"][0]["packets_per_second"], 4500);
    assert_eq!(json["hardware_share"], 0.5);
}

/// Of services by source partition, and of those only.
#[test]
fn partitions_are_shown_where_there_are_any() {
    assert!(!view().text().contains("partitions:") && view().partitions.is_none());
    let mut after = sample([2000, 9000], 9);
    after.services[0].affinity = "partition".to_owned();
    let rules = [("installed", 60), ("moving", 1), ("declined:full", 2), ("declined:mtu", 1)];
    after.offload.partitions = rules.map(|(state, count)| (state.to_owned(), count)).into();
    let told = |after: &Sample| View::new(&sample([1000, 1000], 5), after, Duration::from_secs(2));
    assert_eq!(
        told(&after).head()[2],
        "partitions: 60 rules in hardware, 1 moving, 3 left to software; busiest backend against its weight: no packets yet"
    );
    after.services[0].imbalance_percent = Some(163);
    after.services.push(ServiceRow {
        name: "ntp".to_owned(),
        imbalance_percent: Some(100),
        ..ServiceRow::default()
    });
    assert!(
        told(&after).head()[2].ends_with("its weight: web 163 %, ntp 100 %"),
        "{}",
        told(&after).head()[2]
    );
    let json = serde_json::to_value(told(&after)).expect("plain rows");
    assert_eq!(
        (&json["partitions"]["moving"], &json["services"][0]["imbalance_percent"]),
        (&1.into(), &163.into())
    );
    let mut terminal = Terminal::new(TestBackend::new(140, 30)).expect("a terminal");
    terminal.draw(|frame| screen::draw(frame, &told(&after), None)).expect("drawn");
    assert!(terminal.backend().to_string().contains("60 rules in hardware"));
}

/// Whatever the size of the terminal.
#[test]
fn every_screen_can_be_drawn() {
    for (width, height) in [(1, 1), (20, 5), (80, 24), (200, 60)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        for problem in [None, Some("gone\nreally")] {
            terminal.draw(|frame| screen::draw(frame, &view(), problem)).expect("drawn");
        }
        let shown = terminal.backend().to_string();
        assert!(height < 24 || (shown.contains("10.0.1.11:8080") && shown.contains("gone")), "{shown}");
    }
}
