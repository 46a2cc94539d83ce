//! A completion that is being made: vLLM has sent its first part, so it runs.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;

/// How long a whole answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A streamed answer of which the first part is there.
#[derive(Debug)]
pub struct OpenRequest {
    rest: Response,
    received: Vec<u8>,
}

impl OpenRequest {
    /// Posts the body, and waits for the first part of the answer.
    ///
    /// # Errors
    ///
    /// What there was instead.
    pub async fn send(url: &str, body: &Value) -> Result<Self, String> {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = client.post(url).json(body).timeout(PATIENCE);
        let mut rest = request.send().await.map_err(|error| error.to_string())?;
        if !rest.status().is_success() {
            return Err(format!("{rest:?}"));
        }
        let first = rest.chunk().await.map_err(|error| error.to_string())?;
        let received = first.ok_or("an answer without a part")?.to_vec();
        Ok(Self { rest, received })
    }

    /// Reads the rest: the whole text.
    ///
    /// # Errors
    ///
    /// How the answer ended before it was whole.
    pub async fn text(mut self) -> Result<String, String> {
        while let Some(part) = self.rest.chunk().await.map_err(|error| error.to_string())? {
            self.received.extend_from_slice(&part);
        }
        text_of(&String::from_utf8_lossy(&self.received))
    }
}

/// Of server-sent events: the text of all parts, if the last says that they are all.
fn text_of(events: &str) -> Result<String, String> {
    let mut text = String::new();
    for data in events.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            return Ok(text);
        }
        let part: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
        let choice = part["choices"][0]["text"].as_str().ok_or_else(|| data.to_owned())?;
        text.push_str(choice);
    }
    Err(format!("an answer that is not whole: {events}"))
}

#[cfg(test)]
mod tests {
    use super::text_of;

    #[test]
    fn an_answer_is_whole_when_it_says_so() {
        let part = |text| format!("data: {{\"choices\": [{{\"text\": \"{text}\"}}]}}\n\n");
        let parts = part("once ") + &part("upon");
        assert!(text_of(&parts).is_err());
        assert_eq!(text_of(&(parts + "data: [DONE]\n\n")), Ok("once upon".to_owned()));
    }

    #[test]
    fn an_error_amid_the_parts_is_told() {
        let events = "data: {\"error\": {\"message\": \"dead\"}}\n\ndata: [DONE]\n\n";
        assert!(text_of(events).unwrap_err().contains("dead"));
    }
}
