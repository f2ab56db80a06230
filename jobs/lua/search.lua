#!lua flags=allow-oom
-- Keeps how far the search for a poison row of a leased chunk has come, and notes the attempt that it was about.
-- ARGV: id, index, token, state (JSON; '': as it was), field of a finished part ('': none), that part, reason of the
--       attempt ('': none), milliseconds that it took, nonce of the attempt
-- Returns 'ok', or 'refused' when the token does not hold the lease any more.
local id, index, token, state, field, part, reason, milliseconds, nonce = unpack(ARGV)
if not holds(id, index, token) then
  return 'refused'
end
if state ~= '' then
  if is_doubted(id, index) and not cjson.decode(state).doubted then -- some row of it has a prediction now
    redis.call('HINCRBY', job_key(id), 'doubted', -1)
  end
  redis.call('HSET', job_key(id, 'parts'), index, state)
end
if field ~= '' then
  redis.call('HSET', job_key(id, 'parts'), field, part)
end
redis.call('EXPIRE', job_key(id, 'parts'), LIMITS.life)
if reason ~= '' then
  local at, _, worker = now(), string.match(last_lease(id, index), '^(%S+) (%S+) (%d+)$')
  note_attempt(id, index, worker, at - milliseconds, at, reason, nonce)
end
return 'ok'
