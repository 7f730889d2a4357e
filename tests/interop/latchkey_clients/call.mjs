// Makes one call with the TypeScript client whose module is the argument, and writes what it receives as lines of JSON.

const { createClient, ProblemError, textAfter } = await import(process.argv[2]);
const call = JSON.parse(process.env.CALL);
const client = createClient({ baseUrl: call.url, token: async () => call.token, ...call.options });
const abort = new AbortController();
const write = (line) => console.log(JSON.stringify(line));

async function writeEvents(events) {
  let number = 0;
  let text = "";
  for await (const event of events) {
    write({ event: [Number(event.id), event.event, event.data] });
    number += 1;
    text = textAfter(text, event);
    if (number === call.leave_after) abort.abort();
  }
  write({ text });
}

const calls = {
  chat: async () => {
    const answer = await client.chat({ message: call.message, assistant: call.assistant }, call.key && { idempotencyKey: call.key });
    write("status" in answer ? { [answer.status]: answer.approvals } : { answer: answer.response });
  },
  approvals: async () => write({ approvals: await client.approvals() }),
  decide: async () => write({ decided: await client.decide(call.turn_id, call.call_id, call.decision) }),
  undo: async () => write({ undone: await client.undo(call.turn_id) }),
  decide_and_follow: () => {
    const decision = { decision: call.decision, reason: call.reason };
    return writeEvents(client.decideAndFollow(call.turn_id, call.call_id, decision));
  },
  stream: () => writeEvents(client.stream({ message: call.message, assistant: call.assistant }, { signal: abort.signal })),
  follow: () => writeEvents(client.follow(call.turn_id, { after: call.after })),
  add_task: async () => {
    const request = { params: { path: client.path }, body: { title: call.message } };
    write({ answer: (await client.send((headers) => client.api.POST("/api/{user_id}/tasks", { ...request, headers }))).title });
  },
};

try {
  await calls[call.name]();
} catch (error) {
  if (abort.signal.aborted) write({ left: true });
  else if (error instanceof ProblemError) write({ problem: [error.status, error.code, error.message, error.problem.conflicts] });
  else throw error;
}
