//! What a visitor of the book store sees.

use std::time::{Duration, Instant};

use super::super::eventually;
use super::super::mesh::Answer;
use super::{Lab, SECONDS, Step, near};

/// What a page shows of reviews.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Plain,
    Black,
    Red,
    Unrated,
    Failed,
    /// Not a page of the store.
    Other,
}

/// A visitor's headers: the cookie of who is signed in.
struct Visitor(Option<String>);

const STRANGER: Visitor = Visitor(None);

impl Lab<'_> {
    /// F04: nothing listens before there is a Gateway.
    pub(super) fn nothing_answers_before_the_gateway_f04(&self) {
        let answer = self.get("/productpage", &STRANGER);
        assert_eq!(answer.status, 0, "{answer:?}");
        self.apply(Step::Gateway);
        eventually("the store is reached", SECONDS(15), || {
            let answer = self.get("/productpage", &STRANGER);
            if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        });
    }

    /// F12, F13: exact and prefix paths, queries ignored; others get 404 from the gateway.
    pub(super) fn paths_are_routed_f12_f13(&self) {
        for (path, status, body) in [
            ("/productpage", 200, "Simple Bookstore App"),
            ("/productpage?u=normal", 200, "Simple Bookstore App"),
            ("/api/v1/products", 200, "The Comedy of Errors"),
            ("/api/v1/products/0", 200, "123-1234567890"),
            ("/static/nothing", 404, "productpage has no page"),
            ("/productpage/", 404, ""),
            ("/", 404, ""),
            ("/reviews/0", 404, ""),
        ] {
            let answer = self.get(path, &STRANGER);
            assert_eq!(answer.status, status, "{path} {answer:?}");
            assert!(answer.body.contains(body), "{path} {answer:?}");
            assert_eq!(answer.body.is_empty(), body.is_empty(), "{path} {answer:?}");
            assert_eq!(answer.header("server"), Some("istio-envoy"), "{path}");
        }
    }

    /// F92, F93: the page by pod address, service address and name.
    pub(super) fn pages_are_served_by_every_address_f92_f93(&self) {
        let namespace = self.scenario.store;
        let read = |kind: &str, path: &str| {
            let path = format!("jsonpath={path}");
            self.mesh.kubectl(&[
                "-n",
                namespace,
                "get",
                kind,
                "-l",
                "app=productpage",
                "-o",
                &path,
            ])
        };
        let pod = read("pods", "{.items[0].status.podIP}");
        let service = read("services", "{.items[0].spec.clusterIP}");
        let full = format!("productpage.{namespace}.svc.cluster.local");
        let script = [&pod, &service, "productpage", &full]
            .map(|host| format!("curl -s http://{host}:9080 | grep title\n"))
            .concat();
        let server = ["-n", "kube-system", "get", "service", "kube-dns"];
        let address = ["-o", "jsonpath={.spec.clusterIP}"];
        let server = self.mesh.kubectl(&[&server[..], &address].concat());
        let script = format!("{script}dig +short {full} @{server}\n");
        for injected in [false, true] {
            let printed = self.mesh.in_pod(namespace, injected, &script);
            let page = "<title>Simple Bookstore App</title>";
            assert_eq!(
                printed.matches(page).count(),
                4,
                "injected {injected}: {printed}"
            );
            assert_eq!(
                printed.trim().lines().next_back(),
                Some(service.as_str()),
                "injected {injected}: {printed}"
            );
        }
    }

    /// F23: without rules every version answers.
    pub(super) fn every_version_answers_without_rules_f23(&self) {
        let shown = self.visits(60, &STRANGER);
        for wanted in [Shown::Plain, Shown::Black, Shown::Red] {
            let count = shown.iter().filter(|shown| **shown == wanted).count();
            assert!(count >= 5, "{wanted:?} {count} times: {shown:?}");
        }
    }

    /// F24: one subset alone.
    pub(super) fn one_version_alone_f24(&self) {
        self.apply(Step::AllV1);
        self.until_always(12, Shown::Plain, &STRANGER);
        self.always(50, Shown::Plain, &STRANGER);
    }

    /// F14, F15: the header `end-user` chooses, case-sensitively; the first rule that matches wins.
    pub(super) fn the_user_decides_f14_f15(&self) {
        self.apply(Step::Jason);
        let jason = self.sign_in("jason");
        self.until(Shown::Black, &jason);
        self.always(20, Shown::Black, &jason);
        self.always(10, Shown::Plain, &STRANGER);
        for other in ["bob", "Jason"] {
            self.always(10, Shown::Plain, &self.sign_in(other));
        }
    }

    /// F50, F63: a delay for one user meets the page's timeouts: an error after twice three seconds.
    pub(super) fn a_delay_meets_the_pages_timeouts_f50(&self) {
        self.apply(Step::Delay);
        let jason = self.sign_in("jason");
        self.until(Shown::Failed, &jason);
        let (shown, took) = self.visit(&jason);
        assert_eq!(shown, Shown::Failed);
        // Twice three seconds.
        assert!((SECONDS(5)..SECONDS(8)).contains(&took), "{took:?}");
        let (shown, took) = self.visit(&STRANGER);
        assert_eq!(shown, Shown::Plain);
        assert!(took < SECONDS(2), "{took:?}");
    }

    /// F51, F53: an abort for one user, in the sidecar of the caller: the service behind it sees nothing.
    pub(super) fn an_abort_leaves_reviews_without_stars_f51(&self) {
        self.apply(Step::Abort);
        let jason = self.sign_in("jason");
        self.until(Shown::Unrated, &jason);
        let before = self.ratings_log();
        let (shown, took) = self.visit(&jason);
        assert_eq!(shown, Shown::Unrated);
        assert!(took < SECONDS(2), "{took:?}");
        assert_eq!(self.ratings_log(), before, "ratings saw an aborted request");
        self.always(5, Shown::Plain, &STRANGER);
    }

    /// F42, F43: half of the visits, then all.
    pub(super) fn weights_divide_visits_f42(&self) {
        self.apply(Step::Half);
        self.until(Shown::Red, &STRANGER);
        let shown = self.visits(400, &STRANGER);
        let red = shown.iter().filter(|shown| **shown == Shown::Red).count();
        let plain = shown.iter().filter(|shown| **shown == Shown::Plain).count();
        assert_eq!(red + plain, 400, "{shown:?}");
        near(red, 400, 0.5, "red stars");
    }

    /// F42, F43: half of the visits, then all.
    pub(super) fn all_visits_move_f43(&self) {
        self.apply(Step::AllV3);
        self.until_always(12, Shown::Red, &STRANGER);
        self.always(50, Shown::Red, &STRANGER);
    }

    /// F52: a delay for everyone.
    pub(super) fn slow_ratings_delay_the_page_f52(&self) {
        self.apply(Step::SlowRatings);
        eventually("slow black stars", SECONDS(15), || {
            let (shown, took) = self.visit(&STRANGER);
            // A machine that is busy adds to the two seconds.
            if shown == Shown::Black && (SECONDS(2)..SECONDS(3)).contains(&took) {
                Ok(())
            } else {
                Err(format!("{shown:?} {took:?}"))
            }
        });
    }

    /// F60, F63: a timeout: 504 after half a second, the page after two tries.
    pub(super) fn a_timeout_ends_slow_calls_f60(&self) {
        self.apply(Step::Impatient);
        self.until(Shown::Failed, &STRANGER);
        let began = Instant::now();
        let answer = self.get("/api/v1/products/0/reviews", &STRANGER);
        let took = began.elapsed();
        let error = "Sorry, product reviews are currently unavailable for this book.";
        assert_eq!(
            (answer.status, answer.field("error").as_str()),
            (504, error),
            "{answer:?}"
        );
        // Half a second, twice.
        assert!(
            (Duration::from_millis(950)..SECONDS(2)).contains(&took),
            "{took:?}"
        );
        let script = "curl -s -w ' %{http_code} %{time_total}' http://reviews:9080/reviews/0";
        let printed = self.mesh.in_pod(self.scenario.store, true, script);
        assert!(
            printed.contains("upstream request timeout 504 0.5"),
            "{printed}"
        );
    }

    fn get(&self, path: &str, visitor: &Visitor) -> Answer {
        let url = format!("{}{path}", self.mesh.gateway());
        match &visitor.0 {
            Some(cookie) => self.mesh.curl(&["-H", &format!("cookie: {cookie}"), &url]),
            None => self.mesh.curl(&[&url]),
        }
    }

    fn sign_in(&self, user: &str) -> Visitor {
        let url = format!("{}/login", self.mesh.gateway());
        let answer = self
            .mesh
            .curl(&["-d", &format!("username={user}&passwd=any"), &url]);
        assert_eq!(answer.status, 302, "{answer:?}");
        let cookie = answer.header("set-cookie").expect("a cookie");
        Visitor(cookie.split(';').next().map(str::to_owned))
    }

    fn visit(&self, visitor: &Visitor) -> (Shown, Duration) {
        let began = Instant::now();
        let page = self.get("/productpage", visitor).body;
        let count = |part: &str| page.matches(part).count();
        let shown = if count("Error fetching product reviews!") == 1
            && count("Sorry, product reviews are currently unavailable for this book.") == 1
        {
            Shown::Failed
        } else if count("Ratings service is currently unavailable") == 2 {
            Shown::Unrated
        } else if count("<font color=\"black\">") == 2 {
            Shown::Black
        } else if count("<font color=\"red\">") == 2 {
            Shown::Red
        } else if count("Book Reviews") == 1 && count("<font") == 0 {
            Shown::Plain
        } else {
            Shown::Other
        };
        (shown, began.elapsed())
    }

    fn visits(&self, count: usize, visitor: &Visitor) -> Vec<Shown> {
        (0..count).map(|_| self.visit(visitor).0).collect()
    }

    /// Waits for what a step shows now and then.
    fn until(&self, wanted: Shown, visitor: &Visitor) {
        self.until_always(1, wanted, visitor);
    }

    /// Waits for what a step shows always, although the step before may show it now and then.
    fn until_always(&self, in_a_row: usize, wanted: Shown, visitor: &Visitor) {
        eventually(&format!("{wanted:?}"), SECONDS(20), || {
            let shown = self.visits(in_a_row, visitor);
            if shown.iter().all(|shown| *shown == wanted) {
                Ok(())
            } else {
                Err(format!("{shown:?}"))
            }
        });
    }

    fn always(&self, count: usize, wanted: Shown, visitor: &Visitor) {
        for index in 0..count {
            let (shown, took) = self.visit(visitor);
            assert_eq!(shown, wanted, "visit {index} of {count}, after {took:?}");
        }
    }

    fn ratings_log(&self) -> String {
        let arguments = [
            "-n",
            self.scenario.store,
            "logs",
            "-l",
            "app=ratings",
            "-c",
            "ratings",
            "--tail=-1",
        ];
        let log = self.mesh.kubectl(&arguments);
        // Probes are logged too.
        log.lines()
            .filter(|line| line.contains("/ratings/"))
            .collect()
    }
}
