#!lua
-- Accepts a small batch of JSON inputs, wholly here and of one chunk, and puts it into the inbox of its model version.
-- ARGV: id, generation, tenant, model key, sha256, layout, bytes that a row of results will take, rows, chunk,
--       rows that nobody has to measure first, most seconds of work, ticket, milliseconds of the mark, digest of the
--       idempotency key ('': none), fingerprint of the request
-- Returns what accept_singles does for each, or 'large' when it is too much work for one chunk, by the measured speed of
-- the model.
local id, generation, tenant, model_key, sha256, layout, row_bytes, rows, chunk = unpack(ARGV)
local unmeasured, seconds, ticket, mark_ms, digest, fingerprint = unpack(ARGV, 10)
if not is_current(generation) then
  return 'generation'
end
local said = said_before(id, model_key, ticket)
if said then
  return said
end
local known = tonumber(rate(model_key))
if tonumber(rows) > (known and known * seconds or tonumber(unmeasured)) then
  return 'large'
end
local at = now()
local refused = key_refusal(tenant, digest, fingerprint, at) or shortage(#chunk + row_bytes * rows)
if refused then
  return refused
end
if digest ~= '' then -- first, for the tombstone stays as long as the key
  take_key(id, tenant, digest, fingerprint)
end
create_batch(id, tenant, at, {
  'form', 'json', 'status', 'queued', 'model_key', model_key, 'sha256', sha256, 'layout', layout, 'row_bytes', row_bytes,
  'rows_received', rows, 'rows_total', rows, 'chunks_received', 1, 'backlog', #chunk,
})
redis.call('HSET', job_key(id, 'rows'), 0, rows)
redis.call('HSET', job_key(id, 'inputs'), 0, chunk)
redis.call('RPUSH', job_key(id, 'waiting'), 0)
expire(id, LIMITS.life)
promise(id, row_bytes * rows)
return wait_in_inbox(id, model_key, inbox_batches(model_key), ticket, mark_ms, at) .. ' ' .. int(at)
