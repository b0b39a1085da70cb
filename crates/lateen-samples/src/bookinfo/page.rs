//! The markup of the store's pages.
//!
//! Colour and number of stars stand in the markup the way that tests of this well-known demo look for them: a `font`
//! element with the colour, and one `glyphicon` element per star.

use std::fmt::Write;

use http::StatusCode;
use serde_json::Value;

use super::productpage::{Part, Product, ProductPage};
use crate::html::{self, escape};

/// Stars of a full rating.
const STARS: i64 = 5;

const SIGN_IN: &str = r#"<dialog id="login-modal" aria-labelledby="sign-in">
<header>
<button type="button" class="close" aria-label="Close">&times;</button>
<h4 id="sign-in">Please sign in</h4>
</header>
<form method="post" action="login" name="login_form">
<p><input type="text" name="username" id="username" placeholder="User Name" autocomplete="username" required maxlength="256"></p>
<p><input type="password" name="passwd" placeholder="Password" autocomplete="current-password"></p>
<p>
<button type="submit" class="button main">Sign in</button>
<button type="button" class="button cancel">Cancel</button>
</p>
</form>
</dialog>
"#;

const SCRIPT: &str = r#"<script>
const dialog = document.getElementById("login-modal");
document.querySelector("nav button")?.addEventListener("click", () => { dialog.showModal(); document.getElementById("username").focus(); });
for (const button of dialog.querySelectorAll(".close, .cancel")) button.addEventListener("click", () => dialog.close());
</script>
"#;

/// The page of a book.
pub(super) fn product(
    product: &Product,
    user: Option<&str>,
    details: &Part,
    reviews: &Part,
) -> String {
    let visitor = match user {
        Some(user) => format!(
            "<p>{} ( <a href=\"logout\">sign out</a> )</p>",
            escape(user)
        ),
        None => "<button type=\"button\" class=\"button\">Sign in</button>".to_owned(),
    };
    let body = format!(
        "<nav>\n<a class=\"brand\" href=\"#\">BookInfo Sample</a>\n{visitor}\n</nav>\n{SIGN_IN}\
         <main>\n<h3>{title}</h3>\n<p>Summary: {description}</p>\n\
         <div class=\"columns\">\n{details}{reviews}</div>\n</main>\n{SCRIPT}",
        title = escape(product.title),
        description = product.description,
        details = details_card(details),
        reviews = reviews_card(reviews),
    );
    html::page("Simple Bookstore App", &body)
}

/// The page that says what the store consists of.
pub(super) fn index(page: &ProductPage) -> String {
    let rows = [
        ("productpage", "this page; asks details and reviews", None),
        ("details", "author, pages, publisher", Some(&page.details)),
        (
            "reviews",
            "what readers say; v2 and v3 ask ratings",
            Some(&page.reviews),
        ),
        ("ratings", "stars per reader", Some(&page.ratings)),
    ]
    .map(|(name, what, at)| {
        let at = at.map_or_else(|| "-".to_owned(), |at| format!("http://{}", at.authority()));
        [name.to_owned(), what.to_owned(), at]
    });
    let table = html::table(&["Service", "Tells", "Address"], &rows);
    let body = format!(
        "<nav><a class=\"brand\" href=\"#\">BookInfo Sample</a></nav>\n<main>\n<div class=\"card\">\n\
         <h1>A small book store</h1>\n<p>Four services make up the page of a book:</p>\n{table}</div>\n\
         <p>Look at the page as <a class=\"button main\" href=\"productpage?u=normal\">Normal user</a> \
         <a class=\"button\" href=\"productpage?u=test\">Test user</a></p>\n</main>\n"
    );
    html::page("Simple Bookstore App", &body)
}

fn details_card((status, details): &Part) -> String {
    if *status != StatusCode::OK {
        return failure("details", details);
    }
    let mut list = String::new();
    for (label, field) in [
        ("Type:", "type"),
        ("Pages:", "pages"),
        ("Publisher:", "publisher"),
        ("Language:", "language"),
        ("ISBN-10:", "ISBN-10"),
        ("ISBN-13:", "ISBN-13"),
    ] {
        let value = escape(&plain(&details[field]));
        let _ = writeln!(list, "<div><dt>{label}</dt><dd>{value}</dd></div>");
    }
    format!("<section class=\"card\">\n<h4>Book Details</h4>\n<dl>\n{list}</dl>\n</section>\n")
}

fn reviews_card((status, reviews): &Part) -> String {
    if *status != StatusCode::OK {
        return failure("reviews", reviews);
    }
    let by = match reviews["podname"].as_str() {
        Some(pod) => format!(" title=\"Reviews served by {}\"", escape(pod)),
        None => String::new(),
    };
    let mut list = String::new();
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let _ = writeln!(
            list,
            "<blockquote>\n<p>{}</p>\n<small>{}</small>\n{}</blockquote>",
            escape(&plain(&review["text"])),
            escape(&plain(&review["reviewer"])),
            review.get("rating").map_or_else(String::new, rating),
        );
    }
    format!("<section class=\"card\"{by}>\n<h4>Book Reviews</h4>\n{list}</section>\n")
}

fn rating(rating: &Value) -> String {
    let Some(stars) = rating["stars"].as_i64() else {
        return format!(
            "<p class=\"unrated\">{}</p>\n",
            escape(&plain(&rating["error"]))
        );
    };
    let stars = stars.clamp(0, STARS);
    let draw = |count: i64, class: &str| {
        let star = format!("<span class=\"glyphicon {class}\"></span>\n");
        star.repeat(usize::try_from(count).unwrap_or(0))
    };
    format!(
        "<font color=\"{color}\">\n<!-- full stars: -->\n{full}<!-- empty stars: -->\n{empty}</font>\n",
        color = escape(&plain(&rating["color"])),
        full = draw(stars, "glyphicon-star"),
        empty = draw(STARS - stars, "glyphicon-star-empty"),
    )
}

fn failure(what: &str, error: &Value) -> String {
    format!(
        "<section class=\"card failed\">\n<h4>Error fetching product {what}!</h4>\n<p>{}</p>\n</section>\n",
        escape(&plain(&error["error"])),
    )
}

/// A JSON value as a person writes it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
