#!lua
-- Copies one chunk of an ended batch into the batch that retries it. The same index twice changes nothing.
-- ARGV: id, upload token, index, id of the ended batch, rows to retry ('failed' | 'unprocessed' | 'both' | 'all'),
--       nonce for tickets
-- Returns {'ok', ticket, …}, the tickets to put; {'full <bytes> <free bytes>'} when there is no room for the chunk and
-- its results; {'gone'} when the ended batch is not there any more; or {reason} when the upload cannot go on.
local id, token, index, old, wanted, nonce = unpack(ARGV)
local reason = refusal(id, token)
if reason then
  return { reason }
end
local rows = redis.call('HGET', job_key(old, 'rows'), index)
if not rows then
  return { 'gone' }
end
local done = redis.call('HGET', job_key(old, 'done'), index)
local ok, failed, csv_bytes = string.match(done or '0 0 0', '^(%d+) (%d+) (%d+)$')
local has_input = redis.call('HEXISTS', job_key(old, 'inputs'), index) == 1

-- What becomes of the chunk: work to do, done as it was, or (only failed rows are wanted, and it was never reached) left
-- alone for ever.
local to_do = wanted ~= 'failed'
if done then
  to_do = wanted == 'all' or (wanted ~= 'unprocessed' and tonumber(failed) > 0)
end
local copied_done = done and not to_do

-- What its results are merged into: see `patch`. Nothing where all rows are wanted and their input is there.
local mark = ''
if not copied_done and not (wanted == 'all' and has_input) then
  if wanted == 'all' then
    mark = 'all 0'
  elseif done then
    mark = 'failed ' .. ok
  else
    mark = patch(old, index)
  end
end
local known = copied_done and ok or string.match(mark, '%d+$') or 0

local bytes, copies = 0, {}
local function copy(part, field, new_part, new_field)
  local size = redis.call('HSTRLEN', job_key(old, part), field)
  if size > 0 then
    bytes = bytes + size
    copies[#copies + 1] = { part, field, new_part or part, new_field or field }
  end
end

copy('inputs', index)
if copied_done then
  copy('results', index)
  copy('failures', index)
elseif mark ~= '' and done then
  copy('results', index, 'patches', index .. ':result')
  copy('failures', index, 'patches', index .. ':failures')
elseif mark ~= '' then
  copy('patches', index .. ':result')
  copy('patches', index .. ':failures')
end

local promised = to_do and tonumber(get(id, 'row_bytes')) * rows or 0
local full = shortage(bytes + promised)
if full and redis.call('HEXISTS', job_key(id, 'rows'), index) == 0 then
  return { full }
end
local at = now()
if redis.call('HSETNX', job_key(id, 'rows'), index, rows) == 1 then
  for _, each in ipairs(copies) do
    local part, field, new_part, new_field = unpack(each)
    redis.call('HSET', job_key(id, new_part), new_field, redis.call('HGET', job_key(old, part), field))
  end
  if mark ~= '' then
    redis.call('HSET', job_key(id, 'patches'), index, mark)
  end
  redis.call('HINCRBY', job_key(id), 'rows_received', rows)
  redis.call('HINCRBY', job_key(id), 'chunks_received', 1)
  redis.call('HINCRBY', job_key(id), 'rows_ok', known)
  if copied_done then
    redis.call('HSET', job_key(id, 'done'), index, done)
    redis.call('HINCRBY', job_key(id), 'rows_failed', failed)
    redis.call('HINCRBY', job_key(id), 'rows_copied', rows)
    redis.call('HINCRBY', job_key(id), 'csv_bytes', csv_bytes)
    redis.call('HINCRBY', job_key(id), 'chunks_done', 1)
    if tonumber(failed) > 0 and get(old, 'surplus') then
      redis.call('HSET', job_key(id), 'surplus', get(old, 'surplus'))
    end
    move_prefix(id)
  else
    redis.call('HINCRBY', job_key(id), 'rows_copied', known)
  end
  if to_do then
    redis.call('RPUSH', job_key(id, 'waiting'), index)
    redis.call('HINCRBY', job_key(id), 'backlog', redis.call('HSTRLEN', job_key(id, 'inputs'), index))
    promise(id, promised)
  elseif not copied_done then
    redis.call('HINCRBY', job_key(id), 'chunks_left_alone', 1)
    redis.call('HINCRBY', job_key(id), 'rows_left_alone', rows - known)
  end
  redis.call('HINCRBY', job_key(id), 'revision', 1)
  expire(id, LIMITS.life)
end
extend_upload(id, at)
return { 'ok', unpack(grant(id, at, nonce)) }
