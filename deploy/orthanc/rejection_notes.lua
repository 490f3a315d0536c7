-- Orthanc acts on rejection notes (IHE RAD-TF, Imaging Object Change Management).
--
-- A Key Object Selection whose title is 113037 (Rejected for Patient Safety Reasons) or 113001 (Rejected for Quality
-- Reasons) deletes the instances that it names. It deletes only what the same AE title has sent, because anyone who
-- may store could otherwise delete anything. The note itself stays, as the record of why images are gone.
--
-- In orthanc.json: "LuaScripts": ["/etc/orthanc/rejection_notes.lua"]

local KEY_OBJECT_SELECTION = '1.2.840.10008.5.1.4.1.1.88.59'
local REJECTED = { ['113037'] = true, ['113001'] = true }

-- An empty sequence may be absent, an empty string or an empty table.
local function items(value)
  if type(value) == 'table' then return value end
  return {}
end

local function is_rejection(tags)
  local title = items(tags['ConceptNameCodeSequence'])[1]
  return title ~= nil and title['CodingSchemeDesignator'] == 'DCM' and REJECTED[title['CodeValue']] == true
end

-- A UID has digits and dots; anything else must not reach the REST API.
local function is_uid(text)
  return type(text) == 'string' and #text <= 64 and text:match('^[0-9.]+$') ~= nil
end

local function sender_of(path)
  local found, answer = pcall(RestApiGet, path .. '/metadata/RemoteAET', true)
  return found and answer or ''
end

local function delete_instance(uid, sender)
  if not is_uid(uid) then return false end
  for _, found in ipairs(ParseJson(RestApiPost('/tools/lookup', uid, true))) do
    if found['Type'] == 'Instance' then
      if sender_of(found['Path']) ~= sender then
        print('rejection note: an instance of another sender is kept')
        return false
      end
      return (pcall(RestApiDelete, found['Path'], true))
    end
  end
  return false
end

function OnStoredInstance(instanceId, tags, metadata, origin)
  if tags['SOPClassUID'] ~= KEY_OBJECT_SELECTION or not is_rejection(tags) then return end
  if origin['RequestOrigin'] ~= 'DicomProtocol' then return end
  local deleted, kept = 0, 0
  for _, study in ipairs(items(tags['CurrentRequestedProcedureEvidenceSequence'])) do
    for _, series in ipairs(items(study['ReferencedSeriesSequence'])) do
      for _, instance in ipairs(items(series['ReferencedSOPSequence'])) do
        if delete_instance(instance['ReferencedSOPInstanceUID'], origin['RemoteAet']) then
          deleted = deleted + 1
        else
          kept = kept + 1
        end
      end
    end
  end
  print('rejection note ' .. instanceId .. ': ' .. deleted .. ' instances deleted, ' .. kept .. ' not')
end
