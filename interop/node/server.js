// The interop test service on grpc-js.
'use strict';

const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const { testing, argumentsNamed, ECHO_INITIAL, ECHO_TRAILING } = require('./service');

const payload = (size) => ({ type: 'COMPRESSABLE', body: Buffer.alloc(size) });

/** Sends the initial metadata that the caller wants back, and gives the trailing. */
function echo(call) {
  const trailers = new grpc.Metadata();
  for (const value of call.metadata.get(ECHO_TRAILING)) trailers.add(ECHO_TRAILING, value);
  const initial = new grpc.Metadata();
  for (const value of call.metadata.get(ECHO_INITIAL)) initial.add(ECHO_INITIAL, value);
  call.sendMetadata(initial);
  return trailers;
}

function emptyCall(call, callback) {
  callback(null, {});
}

function unaryCall(call, callback) {
  const trailers = echo(call);
  const { response_status: status, response_size: size } = call.request;
  if (status) callback({ code: status.code, details: status.message, metadata: trailers });
  else callback(null, { payload: payload(size) }, trailers);
}

async function writeOutputs(call, request) {
  for (const { size, interval_us: interval } of request.response_parameters) {
    if (interval > 0) await sleep(interval / 1000);
    call.write({ payload: payload(size) });
  }
}

async function streamingOutputCall(call) {
  await writeOutputs(call, call.request);
  call.end();
}

function streamingInputCall(call, callback) {
  let total = 0;
  call.on('data', (request) => {
    total += request.payload.body.length;
  });
  call.on('end', () => callback(null, { aggregated_payload_size: total }));
  call.on('error', () => {}); // the caller is gone
}

async function fullDuplexCall(call) {
  const trailers = echo(call);
  try {
    // The stream's own iterator would close the sending half, too.
    for await (const request of call.iterator({ destroyOnReturn: false })) {
      const status = request.response_status;
      if (status) {
        call.emit('error', { code: status.code, details: status.message, metadata: trailers });
        return;
      }
      await writeOutputs(call, request);
    }
  } catch (error) {
    if (call.cancelled) return;
    throw error;
  }
  call.end(trailers);
}

const { port } = argumentsNamed('port');
const server = new grpc.Server();
server.addService(testing.TestService.service, {
  emptyCall,
  unaryCall,
  streamingOutputCall,
  streamingInputCall,
  fullDuplexCall,
});
server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
  console.log(`interop server listening at ${port}`);
});
