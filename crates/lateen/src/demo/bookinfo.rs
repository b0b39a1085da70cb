//! The tour of `samples/bookinfo`: Istio's lab, step by step. Stars tell which version of the reviews answered.

use http::{Method, header};

use super::stage::{Sample, Stage, failed, play};
use super::visits::{Expected, Site, change, visit};
use crate::cli::StateArguments;
use crate::exit::Result;
use crate::http_client::{Answer, HttpClient};
use crate::print;

const SAMPLE: Sample = Sample {
    name: "bookinfo",
    files: &[
        (
            "bookinfo.yaml",
            include_str!("../../../../samples/bookinfo/bookinfo.yaml"),
        ),
        (
            "gateway.yaml",
            include_str!("../../../../samples/bookinfo/gateway.yaml"),
        ),
    ],
};

const NONE: &str = "no stars";
const BLACK: &str = "black stars";
const RED: &str = "red stars";
const NO_REVIEWS: &str = "Error fetching product reviews!";
const NO_RATINGS: &str = "Ratings service is currently unavailable";

/// Runs the tour.
pub(super) fn run(state: StateArguments) -> Result<()> {
    let hints = |gateway| {
        vec![(
            "open",
            format!("http://{gateway}/productpage in a browser, and sign in as jason"),
        )]
    };
    play(state, &SAMPLE, hints, tour)
}

async fn tour(stage: &Stage) -> Result<bool> {
    for version in ["v1", "v2", "v3"] {
        stage
            .ready("bookinfo", &format!("reviews-{version}"))
            .await?;
    }
    stage.ready("bookinfo", "productpage-v1").await?;
    let cookie = sign_in(stage).await?;
    let (anyone, jason) = (page(None), page(Some(cookie.as_str())));
    let mut holds = true;
    macro_rules! step {
        ($title:literal, [$($file:literal),*], [$(($who:literal, $site:expr, $count:literal, $expected:expr, $claim:literal)),*]) => {
            print::heading($title);
            change(stage, &[$(($file, include_str!(concat!("../../../../samples/bookinfo/", $file)))),*]).await?;
            $(holds &= visit(stage, $who, $site, $count, &$expected, $claim).await?;)*
        };
    }
    step!(
        "1. No rules: every version in turn",
        [],
        [(
            "anyone",
            &anyone,
            30,
            Expected::Every(&[NONE, BLACK, RED]),
            "reloading changes the stars"
        )]
    );
    step!(
        "2. Everything at v1",
        ["steps/1-all-v1.yaml"],
        [(
            "anyone",
            &anyone,
            20,
            Expected::All(NONE),
            "v1 has no stars"
        )]
    );
    step!(
        "3. jason sees v2",
        ["steps/2-jason-sees-v2.yaml"],
        [
            (
                "jason",
                &jason,
                10,
                Expected::All(BLACK),
                "jason sees black stars"
            ),
            (
                "anyone",
                &anyone,
                10,
                Expected::All(NONE),
                "nobody else does"
            )
        ]
    );
    step!(
        "4. Ratings seven seconds late, for jason",
        ["steps/3-delay-for-jason.yaml"],
        [
            (
                "jason",
                &jason,
                1,
                Expected::After(NO_REVIEWS, 5500..=7500),
                "the page gives up after two times three seconds: a fault found without an outage"
            ),
            (
                "anyone",
                &anyone,
                5,
                Expected::All(NONE),
                "nobody else waits"
            )
        ]
    );
    step!(
        "5. Ratings fail, for jason",
        ["steps/4-abort-for-jason.yaml"],
        [
            (
                "jason",
                &jason,
                5,
                Expected::All(NO_RATINGS),
                "the page says so at once"
            ),
            (
                "anyone",
                &anyone,
                5,
                Expected::All(NONE),
                "nobody else notices"
            )
        ]
    );
    step!(
        "6. Half of the visits to v3",
        ["steps/5-half-to-v3.yaml"],
        [(
            "anyone",
            &anyone,
            200,
            Expected::Share(RED, 36..=64),
            "about half sees red stars"
        )]
    );
    step!(
        "7. All to v3",
        ["steps/6-all-to-v3.yaml"],
        [(
            "anyone",
            &anyone,
            20,
            Expected::All(RED),
            "everybody sees red stars"
        )]
    );
    step!(
        "8. Ratings two seconds late for everyone",
        ["steps/7-slow-ratings.yaml"],
        [(
            "anyone",
            &anyone,
            1,
            Expected::After(BLACK, 1900..=3000),
            "the page waits for them"
        )]
    );
    step!(
        "9. Reviews may take half a second",
        ["steps/8-impatient-reviews.yaml"],
        [(
            "anyone",
            &anyone,
            1,
            Expected::After(NO_REVIEWS, 900..=1800),
            "the page tries twice and says what is missing"
        )]
    );
    Ok(holds)
}

/// The page, as somebody with this cookie sees it.
fn page(cookie: Option<&str>) -> Site<'_> {
    Site {
        path: "/productpage",
        headers: cookie
            .map(|cookie| (header::COOKIE, cookie))
            .into_iter()
            .collect(),
        shows: stars,
    }
}

/// The cookie of a visitor who has signed in as jason.
async fn sign_in(stage: &Stage) -> Result<String> {
    let mut client = HttpClient::new(stage.gateway);
    let form = [(header::CONTENT_TYPE, "application/x-www-form-urlencoded")];
    let answer = client
        .send(Method::POST, "/login", &form, "username=jason&passwd=any")
        .await
        .map_err(failed)?;
    let cookies = answer.headers.get_all(header::SET_COOKIE).iter();
    let pairs =
        cookies.filter_map(|cookie| cookie.to_str().ok()?.split(';').next().map(str::to_owned));
    Ok(pairs.collect::<Vec<_>>().join("; "))
}

/// What a page shows of reviews and ratings.
fn stars(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let signs = [
        (NO_REVIEWS, NO_REVIEWS),
        (NO_RATINGS, NO_RATINGS),
        ("<font color=\"red\">", RED),
        ("<font color=\"black\">", BLACK),
    ];
    let found = signs.into_iter().find(|(sign, _)| text.contains(sign));
    match found {
        Some((_, what)) => what.to_owned(),
        None if answer.status.is_success() => NONE.to_owned(),
        None => answer.status.to_string(),
    }
}
