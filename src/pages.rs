//! The pages of the control API: served and described from the same list.
//!
//! A page knows the types of what it takes and gives, so that its description (OpenAPI 3.1, whose schemas are
//! JSON Schema) cannot say anything else than what happens. What no page wants is refused here, always in
//! the same form: a [`Problem`].

use crate::access::Caller;
use crate::api::{Problem, Refusal, RefusalKind};
use crate::control::{Events, Reply, Request, answer, body_max};
use crate::http::{self, BodyMax};
use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Where the description is.
const DESCRIPTION: &str = "/v1/openapi.json";
const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";

/// What a page may answer besides 200.
const ANY: [u16; 2] = [400, 503];
const FOUND: [u16; 3] = [400, 404, 503];
const POSTED: [u16; 8] = [400, 404, 408, 409, 413, 415, 422, 503];

/// For pages without a query: every key is one too many.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// See the module's header.
pub(crate) struct Pages {
    read_only: bool,
    router: Router<Events>,
    schemas: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Pages {
    /// No pages yet. Of those that are `read_only`, nothing can be changed and a token is asked for.
    pub(crate) fn new(read_only: bool) -> Pages {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        Pages { read_only, router: Router::new(), schemas: settings.into_generator(), paths: Map::new() }
    }

    /// `GET path` of something that is always there.
    pub(crate) fn get<T>(self, path: &str, summary: &str, request: fn(Reply<T>) -> Request) -> Pages
    where
        T: Serialize + JsonSchema + Send + 'static,
    {
        let handler = async move |State(events): State<Events>, query: Asked<Nothing>| {
            query?;
            answer(&events, request).await.map(Json)
        };
        self.page::<Nothing, T>(Method::GET, path, summary, &ANY, get(handler))
    }

    /// `GET path` of something that can fail to be found out.
    pub(crate) fn try_get<T>(
        self,
        path: &str,
        summary: &str,
        request: fn(Reply<Result<T, Refusal>>) -> Request,
    ) -> Pages
    where
        T: Serialize + JsonSchema + Send + 'static,
    {
        let handler = async move |State(events): State<Events>, query: Asked<Nothing>| {
            query?;
            answer(&events, request).await?.map(Json)
        };
        self.page::<Nothing, T>(Method::GET, path, summary, &ANY, get(handler))
    }

    /// `GET path` with a query.
    pub(crate) fn find<Q, T>(
        self,
        path: &str,
        summary: &str,
        request: fn(Q, Reply<Result<T, Refusal>>) -> Request,
    ) -> Pages
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        T: Serialize + JsonSchema + Send + 'static,
    {
        let handler = async move |State(events): State<Events>, query: Asked<Q>| {
            let Query(query) = query?;
            answer(&events, |reply| request(query, reply)).await?.map(Json)
        };
        self.page::<Q, T>(Method::GET, path, summary, &FOUND, get(handler))
    }

    /// `POST path` with a query and without a body: something is done.
    pub(crate) fn act<Q, T>(
        self,
        path: &str,
        summary: &str,
        request: fn(Caller, Q, Reply<Result<T, Refusal>>) -> Request,
    ) -> Pages
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        T: Serialize + JsonSchema + Send + 'static,
    {
        if self.read_only {
            return self;
        }
        let handler = async move |State(events): State<Events>,
                                  Extension(caller): Extension<Caller>,
                                  query: Asked<Q>| {
            let Query(query) = query?;
            answer(&events, |reply| request(caller, query, reply)).await?.map(Json)
        };
        self.page::<Q, T>(Method::POST, path, summary, &POSTED, post(handler))
    }

    /// `POST path` with a body that names what something is done to.
    pub(crate) fn post<B, T>(
        mut self,
        path: &str,
        summary: &str,
        request: fn(Caller, B, Reply<Result<T, Refusal>>) -> Request,
    ) -> Pages
    where
        B: DeserializeOwned + JsonSchema + Send + 'static,
        T: Serialize + JsonSchema + Send + 'static,
    {
        if self.read_only {
            return self;
        }
        let handler = async move |State(events): State<Events>,
                                  Extension(caller): Extension<Caller>,
                                  query: Asked<Nothing>,
                                  body: Given<B>| {
            query?;
            let Json(body) = body?;
            answer(&events, |reply| request(caller, body, reply)).await?.map(Json)
        };
        let content = self.content::<B>(JSON);
        self = self.page::<Nothing, T>(Method::POST, path, summary, &POSTED, post(handler));
        self.paths[path]["post"]["requestBody"] = json!({ "required": true, "content": content });
        self
    }

    /// `POST path` with a query and a body that is text of this `kind`.
    pub(crate) fn upload<Q, T>(
        mut self,
        path: &str,
        summary: &str,
        kind: &'static str,
        request: fn(Caller, Q, String, Outcome<T>) -> Request,
    ) -> Pages
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        T: Serialize + JsonSchema + Send + 'static,
    {
        if self.read_only {
            return self;
        }
        let handler = async move |State(events): State<Events>,
                                  Extension(caller): Extension<Caller>,
                                  query: Asked<Q>,
                                  headers: HeaderMap,
                                  body: Bytes| {
            let Query(query) = query?;
            let text = text_of(kind, &headers, &body)?;
            answer(&events, |reply| request(caller, query, text, reply)).await?.map(Json)
        };
        let content = json!({ kind: { "schema": { "type": "string" } } });
        self = self.page::<Q, T>(Method::POST, path, summary, &POSTED, post(handler));
        self.paths[path]["post"]["requestBody"] = json!({ "required": true, "content": content });
        self
    }

    /// `POST path` with a body that names what is wanted, which is bytes of this `kind`.
    pub(crate) fn download<B, F>(
        mut self,
        path: &str,
        summary: &str,
        kind: &'static str,
        make: fn(Events, B) -> F,
    ) -> Pages
    where
        B: DeserializeOwned + JsonSchema + Send + 'static,
        F: Future<Output = Result<Vec<u8>, Refusal>> + Send + 'static,
    {
        if self.read_only {
            return self;
        }
        let handler = async move |State(events): State<Events>, query: Asked<Nothing>, body: Given<B>| {
            query?;
            let Json(body) = body?;
            let bytes = make(events, body).await?;
            Ok::<_, Refusal>(([(header::CONTENT_TYPE, kind)], bytes))
        };
        let content = self.content::<B>(JSON);
        self = self.page::<Nothing, ()>(Method::POST, path, summary, &POSTED, post(handler));
        let operation = &mut self.paths[path]["post"];
        operation["requestBody"] = json!({ "required": true, "content": content });
        operation["responses"]["200"]["content"] = json!({ kind: {} });
        self
    }

    /// Adds a page to what is served and to what is described.
    fn page<Q: JsonSchema, T: JsonSchema>(
        mut self,
        method: Method,
        path: &str,
        summary: &str,
        refusals: &[u16],
        handler: MethodRouter<Events>,
    ) -> Pages {
        let mut responses = Map::new();
        let done = json!({ "description": "Done, or found", "content": self.content::<T>(JSON) });
        responses.insert("200".to_owned(), done);
        for status in refusals.iter().chain(self.read_only.then_some(&401)) {
            let content = self.content::<Problem>(PROBLEM_JSON);
            let refused = json!({ "description": title(*status), "content": content });
            responses.insert(status.to_string(), refused);
        }
        let operation = json!({
            "summary": summary,
            "operationId": operation_id(&method, path),
            "parameters": self.parameters::<Q>(),
            "responses": responses,
        });
        let operations = json!({ method.as_str().to_ascii_lowercase(): operation });
        self.paths.insert(path.to_owned(), operations);
        self.router = self.router.route(path, handler);
        self
    }

    fn content<T: JsonSchema>(&mut self, kind: &str) -> Value {
        json!({ kind: { "schema": self.schemas.subschema_for::<T>() } })
    }

    /// The query's keys. One that is not given is left out and never null.
    fn parameters<Q: JsonSchema>(&mut self) -> Vec<Value> {
        let mut query = Q::json_schema(&mut self.schemas).to_value();
        let required: Vec<Value> = query["required"].as_array().cloned().unwrap_or_default();
        let Some(keys) = query.get_mut("properties").and_then(Value::as_object_mut) else {
            return Vec::new();
        };
        let parameter = |(name, mut schema): (&String, Value)| {
            forbid_null(&mut schema);
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            json!({
                "name": name,
                "in": "query",
                "required": required.contains(&json!(name)),
                "description": description.unwrap_or_default(),
                "schema": schema,
            })
        };
        keys.iter().map(|(name, schema)| parameter((name, schema.clone()))).collect()
    }

    /// The description of all pages, itself included.
    fn description(&mut self) -> Value {
        let mut description = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Millrace",
                "version": crate::version::VERSION,
                "description": "Numbers of packets and bytes are totals since the start of the process.",
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": "/" }],
            "paths": self.paths,
            "components": { "schemas": self.schemas.take_definitions(true) },
        });
        if self.read_only {
            description["security"] = json!([{ "token": [] }]);
            description["components"]["securitySchemes"] =
                json!({ "token": { "type": "http", "scheme": "bearer" } });
        }
        description
    }

    /// Serves the pages and their description.
    pub(crate) fn router(self, events: Events) -> Router {
        // Filled in below, when it can describe itself.
        let mut all = self.page::<Nothing, Map<String, Value>>(
            Method::GET,
            DESCRIPTION,
            "This description of the API, OpenAPI 3.1",
            &ANY,
            MethodRouter::new(),
        );
        let text = all.description().to_string();
        let handler = async move |query: Asked<Nothing>| -> Result<Response, Refusal> {
            query?;
            Ok(([(header::CONTENT_TYPE, JSON)], text).into_response())
        };
        all.router
            .route(DESCRIPTION, get(handler))
            .fallback(async |uri: Uri| {
                let error = format!("there is no page {}; {DESCRIPTION} lists them", uri.path());
                Refusal::new(RefusalKind::NotFound, error)
            })
            .method_not_allowed_fallback(async |method: Method| {
                Refusal::new(RefusalKind::Method, format!("this page does not take {method}; see Allow"))
            })
            // `whole` knows better.
            .layer(DefaultBodyLimit::disable())
            .layer(from_fn_with_state(body_max as BodyMax, http::whole))
            .layer(from_fn(http::in_time))
            .with_state(events)
    }
}

/// A body that must be text of this kind.
fn text_of(kind: &str, headers: &HeaderMap, body: &[u8]) -> Result<String, Refusal> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or("");
    let (given, _) = given.split_once(';').unwrap_or((given, ""));
    if !given.trim().eq_ignore_ascii_case(kind) {
        return Err(Refusal::new(
            RefusalKind::MediaType,
            format!("the body is to be `Content-Type: {kind}`"),
        ));
    }
    let text = std::str::from_utf8(body).map(str::to_owned);
    text.map_err(|error| Refusal::new(RefusalKind::Malformed, format!("the body is no text: {error}")))
}

/// Where the answer goes of what can fail.
type Outcome<T> = Reply<Result<T, Refusal>>;
/// A query as far as it could be read.
type Asked<Q> = Result<Query<Q>, QueryRejection>;
/// A body as far as it could be read.
type Given<B> = Result<Json<B>, JsonRejection>;

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Refusal {
        Refusal::new(RefusalKind::of_status(rejection.status().as_u16()), rejection.body_text())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Refusal {
        Refusal::new(RefusalKind::of_status(rejection.status().as_u16()), rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let problem =
            Problem { title: title(status).to_owned(), status, detail: self.error, faults: self.faults };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], Json(problem)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A status in words.
fn title(status: u16) -> &'static str {
    let status = StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

/// `get_connections` for `GET /v1/connections`.
fn operation_id(method: &Method, path: &str) -> String {
    let name = path.trim_start_matches("/v1/").replace(['/', '.'], "_");
    format!("{}_{name}", method.as_str().to_ascii_lowercase())
}

/// Takes `null` from what a schema lets in.
fn forbid_null(schema: &mut Value) {
    let null = |kind: &Value| *kind == "null" || kind["type"] == "null";
    for key in ["type", "anyOf", "enum"] {
        let Some(kinds) = schema.get_mut(key).and_then(Value::as_array_mut) else { continue };
        kinds.retain(|kind| !null(kind) && !kind.is_null());
        if kinds.len() > 1 || key == "enum" {
            continue;
        }
        match kinds.pop() {
            Some(Value::Object(one)) if key == "anyOf" => {
                if let Some(schema) = schema.as_object_mut() {
                    schema.remove(key);
                    schema.extend(one);
                }
            }
            one => schema[key] = one.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ConnectionQuery, Connections};

    fn described() -> Value {
        let pages =
            Pages::new(false).find::<ConnectionQuery, Connections>("/v1/c", "C", Request::Connections);
        pages.act("/v1/r", "R", Request::Reload).description()
    }

    #[test]
    fn a_query_s_keys_are_described() {
        let description = described();
        let parameters =
            description["paths"]["/v1/c"]["get"]["parameters"].as_array().expect("a list").clone();
        let find =
            |name: &str| parameters.iter().find(|key| key["name"] == name).expect(name)["schema"].clone();
        assert_eq!(parameters.len(), 5);
        assert_eq!(find("protocol"), json!({ "type": "string", "enum": ["tcp", "udp"] }));
        assert_eq!(find("limit"), json!({ "type": "integer", "minimum": 0, "maximum": 100_000 }));
        assert_eq!(find("service"), json!({ "type": "string" }));
        let addresses =
            json!([{ "type": "string", "format": "ipv4" }, { "type": "string", "format": "ipv6" }]);
        assert_eq!(find("client"), json!({ "anyOf": addresses }));
    }

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_to_what_they_name() {
        let description = described();
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(found.contains(&"#/components/schemas/ConnectionRow".to_owned()), "{found:?}");
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(description.pointer(pointer).is_some_and(Value::is_object), "{reference}");
        }
    }
}
