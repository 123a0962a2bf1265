//! Lists that a registry gives page by page: each answer says in its header `Link` where the next page is (distribution
//! specification, "Listing Tags" and "Listing Referrers"; RFC 8288).

use bytes::Bytes;
use oci_spec::distribution::Reference;
use reqwest::{
    Response,
    header::{HeaderMap, LINK},
};

use crate::{
    RegistryError,
    client::{Ask, Client},
    endpoint::{Content, Endpoint},
    http::{self, ReadError},
    patience::Patience,
    route::Route,
};

/// With 1000 entries each there are more tags than any repository has that somebody looks after.
const PAGES_MAX: usize = 100;
/// All pages together: 4 times what a list that is one document may have.
const LIST_BYTES_MAX: usize = 16 << 20;

impl Client {
    /// All pages of a list, in their order, all of them from one place.
    pub(crate) async fn pages(
        &self,
        reference: &Reference,
        content: Content<'_>,
    ) -> Result<Vec<Bytes>, RegistryError> {
        let ask = Ask { reference, content, from: 0, before: None, bytes: true };
        let mut patience = Patience::new(&self.options.limits);
        loop {
            match self.pages_once(ask).await {
                Err(error) => patience.bear(error).await?,
                pages => return pages,
            }
        }
    }

    async fn pages_once(&self, ask: Ask<'_>) -> Result<Vec<Bytes>, RegistryError> {
        let mut route = Route::new(self, ask)?;
        loop {
            let endpoint = route.next();
            match self.pages_from(&endpoint, ask).await {
                Err(error) => route.failed(&endpoint, error)?,
                pages => return pages,
            }
        }
    }

    async fn pages_from(&self, endpoint: &Endpoint, ask: Ask<'_>) -> Result<Vec<Bytes>, RegistryError> {
        let too_large = || RegistryError::TooLarge {
            what: format!("a list of {}", endpoint.place(ask.reference)),
            limit: LIST_BYTES_MAX,
        };
        let (mut pages, mut room) = (Vec::new(), LIST_BYTES_MAX);
        let mut next = None;
        while pages.len() < PAGES_MAX {
            let content = next.as_deref().map_or(ask.content, Content::Page);
            let response = self.ask(endpoint, Ask { content, ..ask }).await?;
            let follows = following(endpoint, ask.reference, &response)?;
            let page = match http::read(response, room).await {
                Ok(page) => page,
                Err(ReadError::TooLarge) => return Err(too_large()),
                Err(ReadError::Network(source)) => return Err(self.failed(endpoint, ask.reference, source)),
            };
            room -= page.len();
            pages.push(page);
            next = follows;
            if next.is_none() {
                return Ok(pages);
            }
        }
        Err(too_large())
    }
}

/// The address of the page that follows. It must be at the same place: we say there who we are.
fn following(
    endpoint: &Endpoint,
    reference: &Reference,
    response: &Response,
) -> Result<Option<String>, RegistryError> {
    let Some(link) = next_link(response.headers()) else { return Ok(None) };
    match response.url().join(link) {
        Ok(url) if endpoint.is_at(&url) => Ok(Some(url.into())),
        _ => Err(RegistryError::Refused {
            repository: endpoint.place(reference),
            answer: "a list whose next page is at another place".to_owned(),
        }),
    }
}

/// The target of the link with the relation `next`.
fn next_link(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(|mut rest| {
        loop {
            let (target, after) = rest.split_once('<')?.1.split_once('>')?;
            let parameters = after.split_once('<').map_or(after, |(parameters, _)| parameters);
            if parameters.split([';', ',']).any(is_next) {
                return Some(target);
            }
            rest = after;
        }
    })
}

fn is_next(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
        name.trim().eq_ignore_ascii_case("rel") && relations.any(|one| one.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_other_links() {
        for (values, expected) in [
            (&[][..], None),
            (&["</v2/os/tags/list?last=b&n=2>; rel=\"next\""], Some("/v2/os/tags/list?last=b&n=2")),
            (&["<a>; rel=prev, <b,c>;title=x; REL=\"last Next\""], Some("b,c")),
            (&["<a>; rel=prev", "<b>;rel=next"], Some("b")),
            (&["<a>; title=\"next\""], None),
            (&["<a; rel=next", "rel=next", "<>"], None),
        ] {
            let headers = values.iter().map(|value| (LINK, value.parse().unwrap())).collect();
            assert_eq!(next_link(&headers), expected, "{values:?}");
        }
    }
}
