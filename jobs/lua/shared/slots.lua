-- Who is asked to work: tickets for the slots of a batch, and for inboxes.

local SLOT_SILENCE_MS = 2000 -- a slot without a lease for so long is free if its ticket waits nowhere

-- How many single predictions and small batches wait in an inbox.
local function waiting_in(model_key)
  return redis.call('LLEN', inbox_key(model_key)) + redis.call('LLEN', inbox_batches(model_key))
end

-- Puts a new single prediction or small batch into its model's inbox: into the `list` of its kind. Returns 'ok' when a
-- valid mark stands, so a worker is on its way, else where to put the ticket: 'front', or 'back' if no batch slice ran
-- since the last one (neither starves the other).
local function wait_in_inbox(id, model_key, list, ticket, mark_ms, at)
  local waiting = redis.call('RPUSH', list, id)
  redis.call('EXPIRE', list, LIMITS.life)
  redis.call('SADD', key('inboxes'), model_key)
  if live_workers(at) == 0 and redis.call('LLEN', TICKETS) > 0 then
    return 'ok' -- nobody is there to take tickets; the sweep asks when somebody is
  end
  if not redis.call('SET', inbox_mark(model_key), ticket, 'NX', 'PX', mark_ms) then
    if waiting == 1 then -- whoever lingers there hears it; whoever is at work looks by itself
      local bell = inbox_bell(model_key)
      redis.call('DEL', bell)
      redis.call('RPUSH', bell, 1)
      redis.call('PEXPIRE', bell, mark_ms)
    end
    return 'ok'
  end
  return redis.call('SET', key('turn'), 'inbox', 'GET', 'EX', 60) == 'inbox' and 'back' or 'front'
end

-- What the script that accepted a single prediction or small batch said, where it is asked again because the answer was
-- lost; nothing where it has not run yet.
local function said_before(id, model_key, ticket)
  local created_at = get(id, 'created_at')
  if created_at then
    return (redis.call('GET', inbox_mark(model_key)) == ticket and 'front ' or 'ok ') .. created_at
  end
end

-- Hands out the free slots of a batch: as many as it has waiting chunks, at most one for each live worker.
-- `urgent` is for how many chunks, if any, a ticket of their own is wanted, whoever has the slots that are taken.
-- Returns the ids of the tickets to put, one for each slot that was handed out.
local function grant(id, at, nonce, urgent)
  local live, slots = live_workers(at), redis.call('LLEN', job_key(id, 'waiting'))
  if redis.call('LLEN', TICKETS) > 2 * live then
    slots = math.min(slots, 1) -- far behind: more would only make the queue longer
  end
  if slots > 0 and (urgent or 0) > 0 then -- those that have the slots may all hang
    slots = math.max(slots, redis.call('HLEN', job_key(id, 'slots')) + urgent)
  end
  slots = math.min(slots, math.max(live, 1))
  local tickets = {}
  for slot = 0, slots - 1 do
    local ticket = id .. '-' .. slot .. '-' .. nonce
    if redis.call('HSETNX', job_key(id, 'slots'), slot, ticket .. ' ' .. int(at)) == 1 then
      tickets[#tickets + 1] = ticket
    end
  end
  redis.call('EXPIRE', job_key(id, 'slots'), LIMITS.life)
  return tickets
end

local function holder(id, slot)
  local held = redis.call('HGET', job_key(id, 'slots'), slot)
  if not held then
    return false
  end
  local ticket, touched = string.match(held, '^(%S+) (%d+)$')
  return ticket, tonumber(touched)
end

-- Says that the ticket is at work on its slot. False when the slot is another's.
local function touch_slot(id, slot, ticket, at)
  if holder(id, slot) ~= ticket then
    return false
  end
  redis.call('HSET', job_key(id, 'slots'), slot, ticket .. ' ' .. int(at))
  return true
end
