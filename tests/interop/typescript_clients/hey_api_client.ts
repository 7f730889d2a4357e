// A client that `@hey-api/openapi-ts` makes of the OpenAPI document, which checks each request and response with zod.
// Returns what it received.

import { createClient } from "./hey_api/client/index.js";
import * as sdk from "./hey_api/index.js";
import type { Service } from "./service.js";

export async function run({ url, user, token }: Service): Promise<object> {
  const client = createClient({ baseUrl: url, auth: token, throwOnError: true });
  const options = { client, path: { user_id: user }, throwOnError: true } as const;

  const created: sdk.Task = (await sdk.addTask({ ...options, body: { title: "Buy milk", due_at: null } })).data;
  const page: sdk.TaskPage = (await sdk.listTasks({ ...options, query: { status: "pending", limit: 10 } })).data;
  const ofTask = { ...options, path: { ...options.path, task_id: created.id } };
  const completed = (await sdk.completeTask(ofTask)).data;
  const answer: sdk.ChatAnswer | sdk.WaitingAnswer = (await sdk.chat({ ...options, body: { message: "Hello" } })).data;
  if ("approvals" in answer) throw new Error(`The turn waits for ${answer.approvals.length} decisions.`);
  const ofTurn = { ...options, path: { ...options.path, turn_id: answer.turn_id } };
  const ofConversation = { ...options, path: { ...options.path, conversation_id: answer.conversation_id } };
  const events = await sdk.followTurn({ ...ofTurn, sseMaxRetryAttempts: 1, onSseError: rethrow });
  let streamed = "";
  for await (const data of events.stream) if ("text" in data) streamed += data.text;
  const missing = await sdk.getTask({ client, path: { ...options.path, task_id: answer.turn_id }, throwOnError: false });
  const problem: sdk.Problem | undefined = missing.error;

  // Parsed only: zod throws if a response is not as published.
  await sdk.getTurn(ofTurn);
  await sdk.getConversation(ofConversation);
  await sdk.listMessages(ofConversation);
  await sdk.listTurns(ofConversation);
  await sdk.listArtifacts(options);
  await sdk.listContextTokens(options);

  return {
    created: created.title,
    listed: page.items.map((task) => task.title),
    completed: completed.status,
    answer: answer.response,
    streamed,
    problem: [missing.response?.status, problem?.code],
  };
}

function rethrow(error: unknown): never {
  throw error;
}
