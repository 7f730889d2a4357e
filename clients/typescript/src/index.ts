// A client of Latchkey: the whole API with generated types, and turns that survive lost connections.

import createFetchClient, { type Client } from "openapi-fetch";

import type { Approval, ApprovalPage, ChatAnswer, DecidedApproval, NewDecision, NewMessage, paths, PublishedTurn } from "./schema.js";
import type { Problem, ProblemCode, StreamedEvent, WaitingAnswer } from "./schema.js";
export type * from "./schema.js";

export interface ClientOptions {
  /** Where the service is, such as `https://assistant.example.com`. */
  baseUrl: string;
  /** The user's token, or a function that returns a current one. It is called for each request. */
  token: string | (() => string | Promise<string>);
  /** The user of the paths. By default `me`, which stands for the user of the token. */
  user?: string;
  /** How many attempts in a row may fail, by default 8. An event of a stream resets the count. */
  attempts?: number;
  /** How long a stream may be silent, by default 30 s, before it counts as lost. The service sends comments. */
  idleMs?: number;
}

export interface CallOptions {
  /** Ends the call. A turn that has started goes on: cancel it with `turns/{turn_id}/cancel`. */
  signal?: AbortSignal;
  /** By default a new key for each call. Every attempt of the call sends the same one. */
  idempotencyKey?: string;
}

export type Decision = NewDecision["decision"];

type Result = { data?: unknown; error?: unknown; response: Response };
type Bytes = ReadableStream<Uint8Array> | null;

const TEMPORARY = new Set<unknown>(["draining", "unavailable", "exhausted", "too-many-turns"] satisfies ProblemCode[]);
const TEMPORARY_STATUSES = new Set([408, 429, 502, 503, 504]); // of a proxy, whose body is no problem
const LAST = new Set<string>(["turn.completed", "turn.failed", "turn.cancelled", "turn.interrupted", "turn.undone"]);
const DECIDE = "/api/{user_id}/turns/{turn_id}/approvals/{call_id}" as const;
const [FIRST_DELAY_MS, MAX_DELAY_MS] = [250, 10_000];

/** A response with an error. `problem` is its body (RFC 9457); it is empty if a proxy has answered. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";

  constructor(readonly status: number, readonly problem: Partial<Problem>, readonly retryAfterMs: number) {
    super(problem.detail ?? `The service answered with status ${status}.`);
  }

  get code(): ProblemCode | undefined {
    return this.problem.code;
  }

  /** Whether the same request may succeed later. A turn that has failed stays failed: send a new request. */
  get isTemporary(): boolean {
    return this.code === undefined ? TEMPORARY_STATUSES.has(this.status) : TEMPORARY.has(this.code);
  }
}

/** The answer after an event, given the answer before: text is added, or withdrawn where a step has broken off. */
export function textAfter(text: string, event: StreamedEvent): string {
  if (event.event === "message.delta") return text + event.data.text;
  return event.event === "message.withdrawn" ? [...text].slice(0, event.data.length).join("") : text;
}

export const createClient = (options: ClientOptions): LatchkeyClient => new LatchkeyClient(options);

export class LatchkeyClient {
  /** Every operation, typed: `client.api.GET("/api/{user_id}/tasks", { params: { path: client.path } })`. */
  readonly api: Client<paths>;
  readonly path: { readonly user_id: string };

  constructor(readonly options: ClientOptions) {
    const { baseUrl, token, user = "me" } = options;
    this.path = { user_id: user };
    this.api = createFetchClient<paths>({ baseUrl });
    this.api.use({
      async onRequest({ request }) {
        request.headers.set("Authorization", `Bearer ${typeof token === "string" ? token : await token()}`);
      },
    });
  }

  /**
   * Send a request until it is answered, and return the body. All attempts have one idempotency key, so that it has
   * one effect: `send((headers) => client.api.POST("/api/{user_id}/tasks", { headers, … }))`. Throws `ProblemError`.
   */
  async send<T>(
    attempt: (headers: { "Idempotency-Key": string }) => Promise<Result & { data?: T }>,
    { signal, idempotencyKey = newKey() }: CallOptions = {},
  ): Promise<T> {
    const backoff = new Backoff(this.options.attempts, signal);
    for (;;) {
      try {
        return bodyOf<T>(await attempt({ "Idempotency-Key": idempotencyKey }));
      } catch (error) {
        await backoff.wait(error);
      }
    }
  }

  /**
   * Send a message and return the whole answer, or the open questions of a turn that waits (`status: "waiting"`).
   * Throws `ProblemError`, also if the turn fails.
   */
  async chat(message: NewMessage | string, options: CallOptions = {}): Promise<ChatAnswer | WaitingAnswer> {
    const call = { idempotencyKey: newKey(), ...options };
    for (;;) {
      try {
        return await this.send((headers) => this.api.POST("/api/{user_id}/chat", this.#post(message, headers, call)), call);
      } catch (error) {
        if (!(error instanceof ProblemError && error.problem.same_request && error.problem.turn_id)) throw error;
        // The connection was lost and the turn is still running. Once it has ended, the service repeats its answer.
        for await (const _ of this.follow(error.problem.turn_id, options));
      }
    }
  }

  /**
   * Send a message and yield the events of its turn, each once, up to the last, or to a `turn.waiting` that none
   * follows: the turn waits for decisions. Lost connections are resumed.
   */
  stream(message: NewMessage | string, options: CallOptions = {}): AsyncGenerator<StreamedEvent, void> {
    const headers = { Accept: "text/event-stream", "Idempotency-Key": options.idempotencyKey ?? newKey() };
    const request = { ...this.#post(message, headers, options), parseAs: "stream" as const };
    return this.#events(undefined, 0, options, async () => bodyOf(await this.api.POST("/api/{user_id}/chat", request)));
  }

  /** Yield the events of a turn after the one with the number `after`, as `stream` does. */
  follow(turnId: string, { after = 0, ...options }: { after?: number; signal?: AbortSignal } = {}) {
    return this.#events(turnId, after, options, async () => null);
  }

  /** The open questions: tool calls that wait for a decision. */
  async approvals(options: CallOptions = {}): Promise<Approval[]> {
    const approvals: Approval[] = [];
    let page: ApprovalPage | undefined;
    do {
      const query = { limit: 200, ...(page?.next_cursor && { cursor: page.next_cursor }) };
      const request = { params: { path: this.path, query }, ...signalOf(options) };
      page = await this.send(() => this.api.GET("/api/{user_id}/approvals", request), options);
      approvals.push(...page.items);
    } while (page.next_cursor);
    return approvals;
  }

  /** Approve or decline a tool call, and return its result. The turn goes on without the client. */
  decide(turnId: string, callId: string, decision: NewDecision | Decision, options: CallOptions = {}): Promise<DecidedApproval> {
    return this.send(() => this.api.POST(DECIDE, this.#decision(turnId, callId, decision, {}, options)), options);
  }

  /** Approve or decline a tool call, and yield the events of its turn from the decision on, as `stream` does. */
  decideAndFollow(turnId: string, callId: string, decision: NewDecision | Decision, options: CallOptions = {}) {
    const headers = { Accept: "text/event-stream" };
    const request = { ...this.#decision(turnId, callId, decision, headers, options), parseAs: "stream" as const };
    return this.#events(undefined, 0, options, async () => bodyOf(await this.api.POST(DECIDE, request)));
  }

  /**
   * Undo what the tools of a turn have changed, and return the turn. Throws a `ProblemError` with `conflicts` if
   * something has been changed since: then nothing is undone.
   */
  undo(turnId: string, options: CallOptions = {}): Promise<PublishedTurn> {
    const request = { params: { path: { ...this.path, turn_id: turnId } }, ...signalOf(options) };
    return this.send(() => this.api.POST("/api/{user_id}/turns/{turn_id}/undo", request), options);
  }

  #decision<H>(turnId: string, callId: string, decision: NewDecision | Decision, headers: H, options: CallOptions) {
    const path = { ...this.path, turn_id: turnId, call_id: callId };
    const body = typeof decision === "string" ? { decision } : decision;
    return { params: { path }, headers, body, ...signalOf(options) };
  }

  #post<H>(message: NewMessage | string, headers: H, options: CallOptions) {
    const body = typeof message === "string" ? { message } : message;
    return { params: { path: this.path }, headers, body, ...signalOf(options) };
  }

  async *#events(turnId: string | undefined, last: number, { signal }: CallOptions, start: () => Promise<Bytes>) {
    const [backoff, { idleMs = 30_000 }] = [new Backoff(this.options.attempts, signal), this.options];
    let name: string | undefined;
    for (;;) {
      let failure: unknown = new Error("The stream ended before the last event of the turn.");
      try {
        const body = await within(idleMs, turnId === undefined ? start() : this.#resume(turnId, last, signal));
        for await (const event of eventsOf(body, idleMs)) {
          if (Number(event.id) <= last) continue;
          [turnId, last, name] = [event.data.turn_id, Number(event.id), event.event];
          backoff.reset();
          yield event;
          if (LAST.has(name)) return;
        }
        // A response that is complete: the turn waits, or it has no events after the number that the caller has given.
        if (name === "turn.waiting" || (name === undefined && turnId !== undefined)) return;
      } catch (error) {
        failure = error;
      }
      await backoff.wait(failure);
    }
  }

  async #resume(turnId: string, last: number, signal: AbortSignal | undefined): Promise<Bytes> {
    const params = { path: { ...this.path, turn_id: turnId }, header: { "Last-Event-ID": last } };
    const request = { params, parseAs: "stream" as const, ...(signal && { signal }) };
    return bodyOf(await this.api.GET("/api/{user_id}/turns/{turn_id}/events", request));
  }
}

const signalOf = ({ signal }: CallOptions) => (signal ? { signal } : {});

/** Waits between attempts, longer each time, with jitter, and at least as long as `Retry-After` says. */
class Backoff {
  #failures = 0;

  constructor(readonly attempts = 8, readonly signal?: AbortSignal) {}

  reset = (): void => void (this.#failures = 0);

  /** Wait before the next attempt. Throws the error if that cannot succeed, or the reason of an aborted signal. */
  async wait(error: unknown): Promise<void> {
    this.signal?.throwIfAborted();
    this.#failures += 1;
    if (this.#failures >= this.attempts || (error instanceof ProblemError && !error.isTemporary)) throw error;
    const delay = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** (this.#failures - 1)) * (0.5 + Math.random() / 2);
    const aborted = new Promise<void>((resolve) => this.signal?.addEventListener("abort", () => resolve(), { once: true }));
    await within(Math.max(delay, error instanceof ProblemError ? error.retryAfterMs : 0), aborted).catch(() => undefined);
    this.signal?.throwIfAborted();
  }
}

function bodyOf<T>({ data, error, response }: Result): T {
  if (response.ok) return data as T;
  const problem = typeof error === "object" && error !== null ? error : {};
  throw new ProblemError(response.status, problem, 1000 * (Number(response.headers.get("Retry-After")) || 0));
}

async function* eventsOf(body: Bytes, idleMs: number): AsyncGenerator<StreamedEvent, void> {
  const [reader, decoder] = [(body ?? new Blob().stream()).getReader(), new TextDecoder()];
  let text = "";
  try {
    for (let chunk = await within(idleMs, reader.read()); !chunk.done; chunk = await within(idleMs, reader.read())) {
      const frames = (text + decoder.decode(chunk.value, { stream: true })).split("\n\n");
      text = frames.pop() ?? "";
      yield* frames.filter((frame) => frame.startsWith("id: ")).map(parsed); // the others are comments
    }
  } finally {
    reader.cancel().catch(() => undefined); // rejects if the connection is lost
  }
}

function parsed(frame: string): StreamedEvent {
  const fields = Object.fromEntries(frame.split("\n").map((line) => line.split(/: (.*)/s, 2)));
  return { ...fields, data: JSON.parse(fields["data"]) };
}

function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const expired = new Promise<never>((_, reject) => (timer = setTimeout(() => reject(new Error(`Nothing was received for ${ms} ms.`)), ms)));
  return Promise.race([promise, expired]).finally(() => clearTimeout(timer));
}

/** Not `crypto.randomUUID`, which browsers have in secure contexts only. */
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
