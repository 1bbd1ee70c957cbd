//! Pages of the panel for requests without a login.

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Orbit, Rocket};
use serde_json::{Value, json};

use super::{form_errors, missing_state, status_of};
use crate::clock::Now;
use crate::config::Language;
use crate::error::Error;
use crate::i18n::Catalog;
use crate::web::form::{self, Fields};
use crate::web::guards::{RequestTime, ResponseLanguage};
use crate::web::html::{self, Html, HtmlReply};
use crate::web::page::Pages;

/// A request without a login, and what is needed to render a page for it.
pub struct Visitor<'r> {
    /// When the request arrived.
    pub now: Now,
    language: Language,
    theme: &'static str,
    rocket: &'r Rocket<Orbit>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Visitor<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let (RequestTime(now), ResponseLanguage(language)) =
            (RequestTime::of(request), ResponseLanguage::of(request));
        Outcome::Success(Self {
            now,
            language,
            theme: html::theme(request),
            rocket: request.rocket(),
        })
    }
}

impl Visitor<'_> {
    /// The language of the page.
    pub const fn language(&self) -> Language {
        self.language
    }

    /// From now on, requests that accept neither German nor English are answered in this language.
    pub fn set_default_language(&self, language: Language) {
        if let Some(catalog) = self.rocket.state::<Catalog>() {
            catalog.set_default(language);
        }
    }

    /// Renders the template `name` with the members of `values`, a JSON object.
    ///
    /// # Errors
    /// If the template needs a value that it did not get.
    pub fn page(&self, status: Status, name: &str, values: Value) -> HtmlReply {
        let pages = self.rocket.state::<Pages>();
        let pages = pages.ok_or_else(|| missing_state("pages"))?;
        let mut all = html::object_members(json!({
            "lang": self.language.tag(),
            "theme": self.theme,
            "fragment": false,
        }));
        all.extend(html::object_members(values));
        let text = pages.render_in(self.language, name, &all)?;
        Ok(Html::Page { status, text })
    }

    /// As [`super::PanelRequest::render_with_errors`].
    ///
    /// # Errors
    /// `error` itself, if it is none that can be corrected in this form.
    pub fn render_with_errors(
        &self,
        name: &str,
        fields: &Fields,
        error: Error,
        values: Value,
    ) -> HtmlReply {
        let catalog = self.rocket.state::<Catalog>();
        let catalog = catalog.ok_or_else(|| missing_state("texts"))?;
        let status = status_of(&error);
        let errors = form_errors((catalog, self.language), "admins", error)?;
        let mut values = html::object_members(values);
        values.insert("form".to_owned(), form::with_errors(fields, errors));
        self.page(status, name, Value::Object(values))
    }
}
