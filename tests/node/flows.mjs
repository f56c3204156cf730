// Programs written for OpenAI's API with the official `openai` package, one function each.
//
//   node flows.mjs BASE_URL KEY FLOW...
//
// prints one JSON object: of each flow what it returned, or the error it ended with. What is sent first in a flow begins
// with the flow's name, so that a scripted model server can tell whose request it has. tests/test_node_sdk.py asserts.
import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";

const [baseURL, apiKey, ...names] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = "m";
const ended = ["response.completed", "response.failed", "response.incomplete"];

const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const responsesTool = { type: "function", name: "weather", description: "Tells it.", parameters, strict: false };
const user = (content) => ({ type: "message", role: "user", content });
const textOf = (item) => item.content[0].text;

async function all(pages) {
  const items = [];
  for await (const item of pages) items.push(item);
  return items;
}

async function errorOf(attempt) {
  try {
    await attempt();
  } catch (error) {
    const { status, code, param, type, requestID, message } = error;
    return { name: error.constructor.name, status, code, param, type, requestID, message };
  }
  return null;
}

const flows = {
  async chatPlain() {
    const { data, request_id } = await client.chat.completions
      .create({ model, messages: [{ role: "user", content: "chatPlain: hello" }] })
      .withResponse();
    return { text: data.choices[0].message.content, usage: data.usage, requestId: request_id };
  },

  async chatStreamed() {
    const stream = client.chat.completions.stream({
      model,
      messages: [{ role: "user", content: "chatStreamed: hello" }],
      stream_options: { include_usage: true },
    });
    const pieces = [];
    stream.on("content", (delta) => pieces.push(delta));
    const final = await stream.finalChatCompletion();
    return { pieces, text: final.choices[0].message.content, total: final.usage.total_tokens };
  },

  async chatTools() {
    const asked = [];
    const tell = ({ city }) => {
      asked.push(city);
      return `sunny in ${city}`;
    };
    const runner = client.chat.completions.runTools({
      model,
      messages: [{ role: "user", content: "chatTools: weather?" }],
      tools: [
        { type: "function", function: { name: "weather", parse: JSON.parse, function: tell, parameters } },
      ],
    });
    return { text: await runner.finalContent(), asked };
  },

  async storedCompletions() {
    const messages = [{ role: "user", content: "storedCompletions: hello" }];
    const made = [];
    for (const parity of ["even", "odd", "even"])
      made.push(await client.chat.completions.create({ model, messages, store: true, metadata: { parity } }));
    const ids = made.map((completion) => completion.id);
    const listed = (await all(client.chat.completions.list({ limit: 2 }))).map((completion) => completion.id);
    const odd = (await all(client.chat.completions.list({ metadata: { parity: "odd" } }))).map(({ id }) => id);
    const updated = await client.chat.completions.update(ids[0], { metadata: { parity: "none" } });
    const said = (await all(client.chat.completions.messages.list(ids[0]))).map(({ role, content }) => [role, content]);
    const deleted = await client.chat.completions.delete(ids[0]);
    const gone = await errorOf(() => client.chat.completions.retrieve(ids[0]));
    return { ids, listed, odd, metadata: updated.metadata, said, deleted, gone };
  },

  async responsesPlain() {
    const made = await client.responses.create({ model, input: "responsesPlain: hello", metadata: { topic: "demo" } });
    const found = await client.responses.retrieve(made.id);
    await client.responses.delete(made.id);
    const gone = await errorOf(() => client.responses.retrieve(made.id));
    return { text: made.output_text, same: JSON.stringify(made) === JSON.stringify(found), gone };
  },

  async responsesStreamed() {
    const stream = client.responses.stream({ model, input: "responsesStreamed: hello" });
    const events = await all(stream);
    const final = await stream.finalResponse();
    const deltas = events.filter(({ type }) => type === "response.output_text.delta").map(({ delta }) => delta);
    return { numbers: events.map((event) => event.sequence_number), deltas, text: final.output_text };
  },

  async responsesChain() {
    const first = await client.responses.create({ model, input: "responsesChain: one", instructions: "Be brief." });
    const second = await client.responses.create({ model, input: "two", previous_response_id: first.id });
    const items = await all(client.responses.inputItems.list(second.id, { order: "asc", limit: 1 }));
    return { text: second.output_text, previous: second.previous_response_id === first.id, items: items.map(textOf) };
  },

  async responsesTools() {
    const first = await client.responses.create({ model, input: "responsesTools: weather?", tools: [responsesTool] });
    const call = first.output.find(({ type }) => type === "function_call");
    const unanswered = await errorOf(() =>
      client.responses.create({ model, input: "never mind", previous_response_id: first.id }),
    );
    const output = { type: "function_call_output", call_id: call.call_id, output: "sunny in Rome" };
    const last = await client.responses.create({
      model,
      input: [output],
      previous_response_id: first.id,
      tools: [responsesTool],
    });
    return { call: [call.name, call.arguments], unanswered, text: last.output_text };
  },

  async responsesConversation() {
    const conversation = await client.conversations.create({ items: [user("responsesConversation: by the way")] });
    const first = await client.responses.create({ model, input: "one", conversation: conversation.id });
    await client.responses.create({ model, input: "two", conversation: { id: conversation.id } });
    const items = await all(client.conversations.items.list(conversation.id, { order: "asc" }));
    return { named: first.conversation.id === conversation.id, said: items.map(textOf) };
  },

  async responsesBackground() {
    let response = await client.responses.create({ model, input: "responsesBackground: hello", background: true });
    const first = response.status;
    while (["queued", "in_progress"].includes(response.status)) response = await client.responses.retrieve(response.id);
    return { first, last: response.status, text: response.output_text };
  },

  // Of a model that does not answer.
  async responsesCancelled() {
    const response = await client.responses.create({ model, input: "responsesCancelled: hello", background: true });
    const statuses = [];
    for (const call of ["cancel", "cancel", "retrieve"])
      statuses.push((await client.responses[call](response.id)).status);
    return { statuses };
  },

  async responsesResumed() {
    const seen = [];
    const stream = await client.responses.create({
      model,
      input: "responsesResumed: one two three four",
      background: true,
      stream: true,
    });
    for await (const event of stream) {
      seen.push(event);
      if (event.type === "response.output_text.delta") break;
    }
    const id = seen[0].response.id;
    const { sequence_number: starting_after } = seen.at(-1);
    const rest = await all(await client.responses.retrieve(id, { stream: true, starting_after }));
    const events = [...seen, ...rest];
    const whole = await all(await client.responses.retrieve(id, { stream: true }));
    const helped = await client.responses.stream({ response_id: id, starting_after }).finalResponse();
    const deltas = events.filter(({ type }) => type === "response.output_text.delta").map(({ delta }) => delta);
    return {
      numbers: events.map((event) => event.sequence_number),
      text: deltas.join(""),
      last: events.at(-1).type,
      same: JSON.stringify(whole) === JSON.stringify(events),
      helped: helped.output_text,
    };
  },

  async responsesCompacted() {
    const input = [user("responsesCompacted: my name is Ada."), { role: "assistant", content: "Hello Ada." }];
    const compacted = await client.responses.compact({ model, input });
    const carried = [...compacted.output, user("Who am I?")];
    const answer = await client.responses.create({ model, input: carried });
    const counted = await client.responses.inputTokens.count({ model, input });
    return { object: compacted.object, status: answer.status, tokens: counted.input_tokens };
  },

  async responsesSocket() {
    const socket = new ResponsesWS(client);
    const texts = [];
    const ask = (input, more) => socket.send({ type: "response.create", model, input, ...more });
    ask("responsesSocket: one");
    for await (const event of socket.stream()) {
      if (event.type === "error") throw event.error;
      if (event.type !== "message" || !ended.includes(event.message.type)) continue;
      const { id, output } = event.message.response;
      texts.push(output[0].content[0].text);
      if (texts.length === 2) break;
      ask("two", { previous_response_id: id });
    }
    socket.close();
    return { texts };
  },

  async conversations() {
    const made = await client.conversations.create({ metadata: { topic: "demo" } });
    const wanted = Array.from({ length: 105 }, (_, number) => `conversations: ${number}`);
    for (let start = 0; start < wanted.length; start += 20)
      await client.conversations.items.create(made.id, { items: wanted.slice(start, start + 20).map(user) });
    const ascending = await all(client.conversations.items.list(made.id, { order: "asc", limit: 50 }));
    const descending = await all(client.conversations.items.list(made.id));
    const item = await client.conversations.items.retrieve(ascending[3].id, { conversation_id: made.id });
    const left = await client.conversations.items.delete(item.id, { conversation_id: made.id });
    const count = (await all(client.conversations.items.list(made.id, { limit: 100 }))).length;
    const updated = await client.conversations.update(made.id, { metadata: { topic: "else" } });
    const deleted = await client.conversations.delete(made.id);
    const gone = await errorOf(() => client.conversations.retrieve(made.id));
    return {
      complete: JSON.stringify(ascending.map(textOf)) === JSON.stringify(wanted),
      reversed: JSON.stringify(descending.reverse()) === JSON.stringify(ascending),
      item: textOf(item),
      left: left.id === made.id,
      count,
      metadata: updated.metadata,
      deleted: deleted.object,
      gone,
    };
  },

  async models() {
    const listed = (await all(client.models.list())).map(({ id }) => id);
    const model = await client.models.retrieve(listed[0]);
    return { listed, model, unknown: await errorOf(() => client.models.retrieve("org/none")) };
  },

  async errors() {
    const create = (body) => () => client.responses.create({ model, input: "errors: hello", ...body });
    const chat = { model, messages: [{ role: "user", content: "errors: hello" }] };
    return {
      previous: await errorOf(create({ previous_response_id: "resp_none" })),
      streamed: await errorOf(create({ previous_response_id: "resp_none", stream: true })),
      both: await errorOf(create({ previous_response_id: "resp_none", conversation: "conv_none" })),
      temperature: await errorOf(create({ temperature: 3 })),
      chatTemperature: await errorOf(() => client.chat.completions.create({ ...chat, temperature: 3 })),
      limited: await errorOf(create({ input: "limited" })),
      key: await errorOf(() => client.withOptions({ apiKey: "wrong" }).models.list()),
      files: await errorOf(() => client.files.list()),
    };
  },
};

const results = {};
for (const name of names.length ? names : Object.keys(flows)) {
  try {
    results[name] = await flows[name]();
  } catch (error) {
    results[name] = { error: String(error) };
  }
}
console.log(JSON.stringify(results));
