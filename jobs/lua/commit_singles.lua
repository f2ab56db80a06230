#!lua flags=allow-oom
-- Stores the outcomes of leased single predictions and ends their jobs.
-- ARGV: token, then id, 'ok', result, '', '' or id, 'error', code, message, column ('': none is to blame) of each
-- Returns how many were stored; one that the token does not hold any more is left alone.
local token = ARGV[1]
local at = now()
local stored = 0
for i = 2, #ARGV, 5 do
  local id, outcome, first, second, column = unpack(ARGV, i, i + 4)
  if holds(id, SINGLE, token) then
    if outcome == 'ok' then
      redis.call('HSET', job_key(id), 'result', first, 'rows_ok', 1)
      finish(id, 'succeeded', at)
    else
      redis.call('HSET', job_key(id), 'rows_failed', 1)
      if column ~= '' then
        redis.call('HSET', job_key(id), 'error_column', column)
      end
      finish(id, 'failed', at, first, second)
    end
    stored = stored + 1
  end
end
return stored
