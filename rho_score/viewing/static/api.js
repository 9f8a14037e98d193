// Asks the server. Of several questions under one name, only the last one is answered.

import { $ } from "./dom.js";

const running = new Map();

export async function ask(question, fields = {}, name = null) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(fields)) {
    if (value !== null && value !== undefined && value !== "") query.set(key, value);
  }
  const control = new AbortController();
  if (name) {
    running.get(name)?.abort();
    running.set(name, control);
  }
  let response;
  try {
    response = await fetch(`api/${question}?${query}`, { signal: control.signal });
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    tell("The server does not answer. Is the command still running?");
    return undefined;
  }
  const answer = await response.json().catch(() => ({ error: response.statusText }));
  if (control.signal.aborted) return undefined;
  if (!response.ok) {
    tell(answer.error);
    return undefined;
  }
  tell("");
  return answer;
}

export function tell(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}
