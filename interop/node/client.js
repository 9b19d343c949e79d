// One interop case on grpc-js; the arguments are those of grpc's own interop clients.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const grpc = require('@grpc/grpc-js');
const { testing, argumentsNamed, ECHO_INITIAL, ECHO_TRAILING } = require('./service');

const LARGE_REQUEST = 271828;
const LARGE_RESPONSE = 314159;
const REQUEST_SIZES = [27182, 8, 1828, 45904];
const RESPONSE_SIZES = [31415, 9, 2653, 58979];
const INITIAL_VALUE = 'test_initial_metadata_value';
const TRAILING_VALUE = Buffer.from([10, 11, 10, 11, 10, 11]);
const SPECIAL = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';

const asked = argumentsNamed('server_host', 'server_port', 'test_case', 'additional_metadata');
const address = `${asked.server_host}:${asked.server_port}`;
const credentials = grpc.credentials.createInsecure();
const client = new testing.TestService(address, credentials);
const unimplemented = new testing.UnimplementedService(address, credentials);

const payload = (size) => ({ type: 'COMPRESSABLE', body: Buffer.alloc(size) });
const output = (size, ...sizes) => ({
  payload: payload(size),
  response_parameters: sizes.map((each) => ({ size: each })),
});
const within = (milliseconds) => ({ deadline: Date.now() + milliseconds });

function metadata() {
  const fields = new grpc.Metadata();
  for (const field of (asked.additional_metadata || '').split(';').filter(Boolean)) {
    const [, name, value] = /^([^:]*):(.*)$/.exec(field);
    fields.add(name, value);
  }
  return fields;
}

/** A unary call: its reply and metadata, or its error. */
function unary(stub, method, request, fields = metadata()) {
  return new Promise((resolve, reject) => {
    let initial;
    let trailing;
    let reply;
    const call = stub[method](request, fields, within(20000), (error, message) => {
      if (error) reject(error);
      reply = message;
    });
    call.on('metadata', (received) => {
      initial = received;
    });
    call.on('status', (status) => {
      trailing = status.metadata;
      resolve({ reply, initial, trailing });
    });
  });
}

function checkPayload(got, size) {
  assert.equal(got.type, 'COMPRESSABLE');
  assert.deepEqual(got.body, Buffer.alloc(size));
}

function checkMetadata(initial, trailing) {
  assert.deepEqual(initial.get(ECHO_INITIAL), [INITIAL_VALUE]);
  assert.deepEqual(trailing.get(ECHO_TRAILING), [TRAILING_VALUE]);
}

/** All that a stream brings; throws what it ends with unless that is OK. */
async function replies(call) {
  const all = [];
  for await (const reply of call) all.push(reply);
  return all;
}

const cases = {
  async empty_unary() {
    assert.deepEqual((await unary(client, 'emptyCall', {})).reply, {});
  },

  async large_unary() {
    const request = { response_size: LARGE_RESPONSE, payload: payload(LARGE_REQUEST) };
    checkPayload((await unary(client, 'unaryCall', request)).reply.payload, LARGE_RESPONSE);
  },

  async client_streaming() {
    const total = await new Promise((resolve, reject) => {
      const call = client.streamingInputCall(metadata(), within(20000), (error, reply) => {
        if (error) reject(error);
        else resolve(reply.aggregated_payload_size);
      });
      for (const size of REQUEST_SIZES) call.write({ payload: payload(size) });
      call.end();
    });
    assert.equal(total, REQUEST_SIZES.reduce((sum, size) => sum + size));
  },

  async server_streaming() {
    const request = output(0, ...RESPONSE_SIZES);
    const all = await replies(client.streamingOutputCall(request, metadata(), within(20000)));
    assert.equal(all.length, RESPONSE_SIZES.length);
    all.forEach((reply, i) => checkPayload(reply.payload, RESPONSE_SIZES[i]));
  },

  async ping_pong() {
    const call = client.fullDuplexCall(metadata(), within(20000));
    for (const [i, size] of REQUEST_SIZES.entries()) {
      call.write(output(size, RESPONSE_SIZES[i]));
      const [reply] = await once(call, 'data');
      checkPayload(reply.payload, RESPONSE_SIZES[i]);
    }
    call.end();
    const [status] = await once(call, 'status');
    assert.equal(status.code, grpc.status.OK);
  },

  async empty_stream() {
    const call = client.fullDuplexCall(metadata(), within(20000));
    call.end();
    assert.deepEqual(await replies(call), []);
  },

  async custom_metadata() {
    const fields = metadata();
    fields.add(ECHO_INITIAL, INITIAL_VALUE);
    fields.add(ECHO_TRAILING, TRAILING_VALUE);
    const request = { response_size: 1, payload: payload(1) };
    const { reply, initial, trailing } = await unary(client, 'unaryCall', request, fields);
    checkPayload(reply.payload, 1);
    checkMetadata(initial, trailing);

    const call = client.fullDuplexCall(fields, within(20000));
    const received = once(call, 'metadata');
    const ended = once(call, 'status');
    call.write(output(1, 1));
    call.end();
    assert.equal((await replies(call)).length, 1);
    checkMetadata((await received)[0], (await ended)[0].metadata);
  },

  async status_code_and_message() {
    const status = { code: 2, message: 'test status message' };
    const wanted = { code: grpc.status.UNKNOWN, details: status.message };
    await assert.rejects(unary(client, 'unaryCall', { response_status: status }), wanted);
    const call = client.fullDuplexCall(metadata(), within(20000));
    call.write({ response_status: status });
    call.end();
    await assert.rejects(replies(call), wanted);
  },

  async special_status_message() {
    const request = { response_status: { code: 2, message: SPECIAL } };
    const wanted = { code: grpc.status.UNKNOWN, details: SPECIAL };
    await assert.rejects(unary(client, 'unaryCall', request), wanted);
  },

  async unimplemented_method() {
    const wanted = { code: grpc.status.UNIMPLEMENTED };
    await assert.rejects(unary(client, 'unimplementedCall', {}), wanted);
  },

  async unimplemented_service() {
    const wanted = { code: grpc.status.UNIMPLEMENTED };
    await assert.rejects(unary(unimplemented, 'unimplementedCall', {}), wanted);
  },

  async cancel_after_begin() {
    const ended = new Promise((resolve, reject) => {
      const call = client.streamingInputCall(metadata(), within(20000), (error) => {
        if (error) reject(error);
        else resolve();
      });
      setImmediate(() => call.cancel());
    });
    await assert.rejects(ended, { code: grpc.status.CANCELLED });
  },

  async cancel_after_first_response() {
    const call = client.fullDuplexCall(metadata(), within(20000));
    call.write(output(REQUEST_SIZES[0], RESPONSE_SIZES[0]));
    const [reply] = await once(call, 'data');
    checkPayload(reply.payload, RESPONSE_SIZES[0]);
    call.cancel();
    await assert.rejects(replies(call), { code: grpc.status.CANCELLED });
  },

  async timeout_on_sleeping_server() {
    const call = client.fullDuplexCall(metadata(), within(100));
    call.write(output(27182));
    await assert.rejects(replies(call), { code: grpc.status.DEADLINE_EXCEEDED });
  },
};

cases[asked.test_case]().then(
  () => {
    console.log(`${asked.test_case} passed`);
    client.close();
    unimplemented.close();
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
