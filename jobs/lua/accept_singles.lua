#!lua
-- Accepts single predictions and puts each into the inbox of its model version.
-- ARGV: milliseconds of the marks, then of each: how many items follow, id, generation, tenant, model key, what that
--       does not say of its digest, ticket, digest of the idempotency key ('': none), fingerprint of the request, bytes
--       of the input, then fields that hold the input
-- Returns for each 'generation', 'full <bytes> <free bytes>', or '<where> <created_at>': 'ok' when a valid mark stands,
-- so a worker is on its way, or 'front' or 'back': where to put the ticket. It goes to the front unless no batch slice
-- ran since the last one: so neither starves the other.
-- When the idempotency key is taken: 'same <id>' by a job of the same request, else 'idempotency_key_in_use' or
-- 'idempotency_key_reused'.
local mark_ms = ARGV[1]
local current, at = redis.call('GET', key('generation')), now()

local function accept(id, generation, tenant, model_key, model_digest, ticket, digest, fingerprint, bytes, ...)
  if generation ~= current then
    return 'generation'
  end
  local said = said_before(id, model_key, ticket)
  if said then
    return said
  end
  local refused = (digest ~= '' and key_refusal(tenant, digest, fingerprint, at))
    or single_shortage(4 * bytes + 2048) -- the record with its result
  if refused then
    return refused
  end
  create_single(id, tenant, model_key, model_digest, { ... }, at)
  if digest ~= '' then
    take_key(id, tenant, digest, fingerprint)
    bury(id, 'job_expired', at)
  end
  return wait_in_inbox(id, model_key, inbox_key(model_key), ticket, mark_ms, at) .. ' ' .. int(at)
end

local answers = {}
local i = 2
while i <= #ARGV do
  local size = tonumber(ARGV[i])
  local done, answer = pcall(accept, unpack(ARGV, i + 1, i + size)) -- what goes wrong with one harms no other
  answers[#answers + 1] = (done or type(answer) == 'table') and answer or { err = tostring(answer) }
  i = i + 1 + size
end
return answers
