#!lua flags=allow-oom
-- The repair pass. It never needs to know who failed: it looks only at deadlines and at what waits.
-- ARGV: milliseconds of a lease, milliseconds between two sweeps, nonce for tickets, milliseconds of an inbox's mark;
-- and, to look after a single job that somebody asks for while nobody sweeps, its id
-- Returns 'swept' where others sweep and a single job was asked for, else a flat list, three for each ticket to put at
-- the front: 'job', id, ticket or 'inbox', model key, ticket.
local lease_ms, pause_ms, nonce, mark_ms, only = unpack(ARGV)
local IDLE_MS = 2000 -- how long an idle worker waits for a ticket between two sweeps
local MOST_BATCHES = 500 -- that are looked after at once
local UNSWEPT_MS = 5000 -- nobody sweeps: every live worker would, every two seconds or so
local at = now()
local tickets = {}
local returned = {} -- how many chunks of a batch this sweep has put back

local function ask(kind, name, ticket)
  tickets[#tickets + 1] = kind
  tickets[#tickets + 1] = name
  tickets[#tickets + 1] = ticket
end

-- The store was away, or everyone was: nobody could renew, so nobody is to blame. All get one more period, but for those
-- that had not been renewed for half a period when the last sweep was made: whoever held them was gone before.
local function extend_all(last)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), int(last + lease_ms / 2), '+inf')) do
    redis.call('ZADD', key('leases'), int(at + lease_ms), member)
  end
  for _, id in ipairs(redis.call('ZRANGE', key('receiving'), 0, -1)) do
    extend_upload(id, at)
  end
end

-- The token stays in the record of leases: who was only slow may still commit until another takes the lease.
local function collect_leases()
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), '-inf', int(at), 'LIMIT', 0, 1000)) do
    local id, index = string.match(member, '^(%S+) (%S+)$')
    if get(id, 'status') then
      put_back(id, index)
      if index ~= SINGLE then
        returned[id] = (returned[id] or 0) + 1
      end
    else
      redis.call('ZREM', key('leases'), member)
    end
  end
end

local function take_back_uploads()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('receiving'), '-inf', int(at), 'LIMIT', 0, 100)) do
    if is_unaccepted(id) then
      erase(id, 'upload_failed', at)
    else
      redis.call('ZREM', key('receiving'), id)
    end
  end
end

-- True when no live worker has had the version for the time that is allowed. `mark` remembers since when.
local function unavailable(model_key)
  local mark = key('unserved:' .. model_key)
  -- Where no worker lives at all, it is not the version that is missing: jobs wait for workers as long as they may.
  if redis.call('EXISTS', key('served:' .. model_key)) == 1 or live_workers(at) == 0 then
    redis.call('DEL', mark)
    return false
  end
  redis.call('SET', mark, int(at), 'NX')
  redis.call('EXPIRE', mark, math.ceil(LIMITS.version_wait) + 60)
  return at - tonumber(redis.call('GET', mark)) > LIMITS.version_wait * 1000
end

local function fail(id, code)
  local messages = {
    model_unavailable = 'No worker has this version of the model. Start one that has it and submit again.',
    deadline_exceeded = 'The job did not end within the longest time that is allowed for a job.',
  }
  return finish(id, 'failed', at, code, messages[code])
end

-- The ids of the tickets that wait for a worker; read once, for there may be thousands.
local waiting
local function waits(ticket)
  if only then
    return redis.call('LPOS', TICKETS, ticket)
  end
  if not waiting then
    waiting = {}
    for _, other in ipairs(redis.call('LRANGE', TICKETS, 0, -1)) do
      waiting[other] = true
    end
  end
  return waiting[ticket]
end

local function free_slots(id)
  local slots = redis.call('HGETALL', job_key(id, 'slots'))
  for i = 1, #slots, 2 do
    local ticket, touched = holder(id, slots[i])
    if touched + SLOT_SILENCE_MS < at and not waits(ticket) then
      redis.call('HDEL', job_key(id, 'slots'), slots[i])
    end
  end
end

-- Work that was left lying does not wait for its job's turn again: so many of the job's tickets come to the front.
-- Returns how many are still wanted because fewer wait.
local function hurry(id, wanted)
  for _, held in ipairs(redis.call('HVALS', job_key(id, 'slots'))) do
    local ticket = string.match(held, '^%S+')
    if wanted > 0 and redis.call('LREM', TICKETS, 1, ticket) > 0 then
      redis.call('LPUSH', TICKETS, ticket)
      wanted = wanted - 1
    end
  end
  return wanted
end

-- Small batches that wait in an inbox need no tickets of their own: whoever works there takes them.
local in_inbox = {}
local function waits_in_inbox(id)
  local model_key = get(id, 'model_key')
  if not in_inbox[model_key] then
    in_inbox[model_key] = {}
    for _, other in ipairs(redis.call('LRANGE', inbox_batches(model_key), 0, -1)) do
      in_inbox[model_key][other] = true
    end
  end
  return in_inbox[model_key][id]
end

local function look_after(id)
  local created_at = get(id, 'created_at')
  if not created_at then
    redis.call('ZREM', key('batches'), id)
    redis.call('HDEL', key('promised'), id)
  elseif at - tonumber(created_at) > LIMITS.job_max_age * 1000 then
    fail(id, 'deadline_exceeded')
  elseif unavailable(get(id, 'model_key')) then
    fail(id, 'model_unavailable')
  else
    if redis.call('TTL', job_key(id)) < LIMITS.life - 3600 then
      expire(id, LIMITS.life)
    end
    if redis.call('LLEN', job_key(id, 'waiting')) > 0 and not waits_in_inbox(id) then
      free_slots(id)
      for _, ticket in ipairs(grant(id, at, nonce, hurry(id, returned[id] or 0))) do
        ask('job', id, ticket)
      end
    end
  end
end

-- A sweep must not take long, so of very many batches it looks after the oldest, those that it has put chunks back of,
-- and some of the others: all have their turn within some sweeps, for the nonce is random.
local function look_after_batches()
  local others = redis.call('ZCARD', key('batches')) - MOST_BATCHES
  local function look_from(first)
    for _, id in ipairs(redis.call('ZRANGE', key('batches'), int(first), int(first + MOST_BATCHES - 1))) do
      look_after(id)
      returned[id] = nil
    end
  end
  look_from(0)
  if others > 0 then
    local pages = math.ceil(others / MOST_BATCHES)
    look_from(MOST_BATCHES * (1 + tonumber(nonce, 16) % pages))
    for id in pairs(returned) do
      look_after(id)
    end
  end
end

local function ask_for_inbox(model_key)
  if redis.call('SET', inbox_mark(model_key), 'inbox-' .. nonce, 'NX', 'PX', mark_ms) then
    ask('inbox', model_key, 'inbox-' .. nonce)
  end
end

local function look_after_inbox(model_key)
  local inbox = inbox_key(model_key)
  if waiting_in(model_key) == 0 then
    redis.call('SREM', key('inboxes'), model_key)
  elseif unavailable(model_key) then
    for _, id in ipairs(redis.call('LRANGE', inbox, 0, 999)) do
      if not fail(id, 'model_unavailable') then -- else it is out of there already
        redis.call('LREM', inbox, 1, id)
      end
    end
    redis.call('DEL', inbox_batches(model_key)) -- they fail as all batches do
  else
    ask_for_inbox(model_key)
  end
end

local function look_after_single(id)
  local model_key = get(id, 'model_key')
  if at - tonumber(get(id, 'created_at')) > LIMITS.job_max_age * 1000 then
    fail(id, 'deadline_exceeded')
  elseif unavailable(model_key) then
    fail(id, 'model_unavailable')
  elseif redis.call('LLEN', inbox_key(model_key)) > 0 and (live_workers(at) > 0 or redis.call('LLEN', TICKETS) == 0) then
    ask_for_inbox(model_key) -- else tickets that nobody takes would pile up
  end
end

-- Without workers there is nobody who could take a lease, so none is collected. An upload has a second deadline's time:
-- the first may have passed while the store was away.
local function look_after_only(id)
  local status = get(id, 'status')
  if not status or not next(MOVES[status]) then
    return
  end
  local deadline = redis.call('ZSCORE', key('receiving'), id)
  if deadline and tonumber(deadline) + LIMITS.upload_deadline * 1000 < at then
    erase(id, 'upload_failed', at)
  elseif kind_of(id) == 'single' then
    look_after_single(id)
  else
    look_after(id)
  end
end

local function drop_old_singles()
  local bound = int(at - LIMITS.job_max_age * 1000)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('singles'), '-inf', bound, 'LIMIT', 0, 100)) do
    if get(id, 'status') then
      fail(id, 'deadline_exceeded')
    else
      redis.call('ZREM', key('singles'), id)
    end
  end
end

local last = tonumber(redis.call('GET', key('swept')) or 0)
if last > at then -- the store's clock was set back, or another machine has taken over
  last = 0
end
if only then
  if at - last <= UNSWEPT_MS then
    return 'swept'
  end
  look_after_only(only)
  return tickets
end
if at - last < tonumber(pause_ms) then
  return tickets
end
redis.call('SET', key('swept'), int(at), 'EX', LIMITS.life)
redis.call('ZREMRANGEBYSCORE', key('workers'), '-inf', int(at - WORKER_SILENCE_MS))
if at - last > math.max(lease_ms / 2, 3 * pause_ms, 2 * IDLE_MS) then
  extend_all(last)
end
collect_leases()
take_back_uploads()
drop_old_singles()
look_after_batches()
for _, model_key in ipairs(redis.call('SMEMBERS', key('inboxes'))) do
  look_after_inbox(model_key)
end
return tickets
