/* Refreshes the page while somebody looks at it, says when it is not current any more, and listens to the keyboard. */
(function () {
  'use strict';

  var EVERY_MS = 5000;
  var CURRENT_FOR_MS = 15000;
  var ACT_WITHIN_MS = 120000; // a release writes every file of a series anew
  var POLLED = ['lights', 'list', 'live'];
  var UNREACHED = 'the page does not reach its node';
  var UNKNOWN = 'No answer came, so it may be done or not: load the page again and look before you decide.';
  var heard = {}; // when each of them last came, and why it did not come since
  var lastSaid = '';
  var typed = false;

  function byId(id) { return document.getElementById(id); }
  function each(selector, act) { Array.prototype.forEach.call(document.querySelectorAll(selector), act); }
  // Somebody may set the one clock, and the other one stands still while the computer sleeps.
  function clocks() { return { set: Date.now(), steady: window.performance.now() }; }
  function msSince(then) { var now = clocks(); return Math.max(now.set - then.set, now.steady - then.steady); }

  document.documentElement.classList.add('script');

  // -- refresh, and whether it still comes --------------------------------------------------------------------------

  function tick() {
    if (document.hidden) { return; }
    window.htmx.trigger(document.body, 'tick');
    judge();
  }

  function oldest() {
    // What is shown once, such as a patient's ID in full, is not refreshed, and says so itself.
    var found = { ms: 0, why: '' };
    POLLED.forEach(function (id) {
      var part = byId(id);
      var ms = part && part.hasAttribute('hx-get') ? msSince(heard[id].at) : 0;
      if (ms > found.ms) { found = { ms: ms, why: heard[id].why }; }
    });
    return found;
  }

  function judge() {
    var part = oldest();
    var stale = part.ms > CURRENT_FOR_MS;
    var note = byId('stale');
    document.body.classList.toggle('is-stale', stale);
    if (stale) {
      var long = part.ms < 60000 ? CURRENT_FOR_MS / 1000 + ' s' : Math.floor(part.ms / 60000) + ' min';
      var text = 'Not current for more than ' + long + ': ' + part.why + '. What you see is old.';
      if (note.textContent !== text) { note.textContent = text; }
    }
    note.hidden = !stale;
  }

  function came(id) {
    heard[id] = { at: clocks(), why: UNREACHED };
    judge();
  }

  function failed(id, why) {
    if (heard[id]) { heard[id].why = why.replace(/\.$/, ''); }
    judge();
  }

  function isPoll(event) {
    var cause = event.detail.requestConfig && event.detail.requestConfig.triggeringEvent;
    return Boolean(cause && cause.type === 'tick');
  }

  function isInUse(region) {
    // What somebody reads, copies or fills in is not taken from under his hands.
    var selection = window.getSelection();
    if (selection && !selection.isCollapsed && region.contains(selection.anchorNode)) { return true; }
    if (region.id !== 'verbs') { return false; }
    var open = region.querySelector('details[open]');
    return typed || Boolean(open) || region.contains(document.activeElement);
  }

  document.addEventListener('htmx:configRequest', function (event) {
    var cause = event.detail.triggeringEvent;
    if (cause && cause.type === 'tick') { event.detail.headers['X-Syncect-Poll'] = '1'; }
    if (event.detail.verb !== 'get') { event.detail.timeout = ACT_WITHIN_MS; }
  });

  document.addEventListener('htmx:beforeRequest', function (event) {
    if (isPoll(event) && isInUse(event.detail.elt)) { event.preventDefault(); failed(event.detail.elt.id, 'text of it is selected'); }
  });

  document.addEventListener('htmx:beforeSwap', function (event) {
    var detail = event.detail;
    if (isPoll(event) && isInUse(detail.target)) { detail.shouldSwap = false; }
    if (isPoll(event) && detail.shouldSwap && !detail.isError) { came(detail.requestConfig.elt.id); }
  });

  document.addEventListener('htmx:afterSwap', function (event) {
    var target = event.detail.target;
    if (target.id === 'drawer' && !isPoll(event)) { typed = false; say(''); came('live'); opened(); }
    if (target.id === 'verbs') { typed = false; }
    if (target.id === 'list') { marked(); tell(); }
  });

  document.addEventListener('htmx:responseError', function (event) {
    var xhr = event.detail.xhr;
    var isSentence = /^text\/plain/.test(xhr.getResponseHeader('content-type') || '');
    var said = isSentence && xhr.responseText ? xhr.responseText.trim() : 'the answer was ' + xhr.status;
    if (isPoll(event)) { failed(event.detail.elt.id, said); } else { say('It did not work: ' + said); }
  });
  function noAnswer(event) {
    if (isPoll(event)) { failed(event.detail.elt.id, UNREACHED); } else {
      say(event.detail.requestConfig.verb === 'get' ? 'It did not work: ' + UNREACHED + '.' : UNKNOWN);
    }
  }
  document.addEventListener('htmx:sendError', noAnswer);
  document.addEventListener('htmx:timeout', noAnswer);

  document.addEventListener('visibilitychange', function () { if (!document.hidden) { tick(); } });

  function tell() {
    var summary = byId('summary');
    var text = summary ? summary.getAttribute('data-said') : '';
    if (text && text !== lastSaid) {
      if (lastSaid) { byId('said').textContent = text; }
      lastSaid = text;
    }
  }

  function say(text) {
    var note = byId('problem');
    note.textContent = text;
    note.hidden = !text;
  }

  // -- the drawer ---------------------------------------------------------------------------------------------------

  function openId() {
    var title = byId('drawer-title');
    return title && byId('list') ? title.textContent.replace('Job ', '') : '';
  }

  function marked() {
    each('.cases tr.open', function (row) { row.classList.remove('open'); });
    each('a.case[aria-current]', function (link) { link.removeAttribute('aria-current'); });
    var id = openId();
    var link = id && byId('case-' + id);
    if (link) {
      link.setAttribute('aria-current', 'true');
      byId('row-' + id).classList.add('open');
    }
  }

  function opened() {
    document.body.classList.add('with-drawer');
    marked();
    var alert = document.querySelector('#drawer [role=alert], #drawer .ask h2');
    if (alert) { alert.setAttribute('tabindex', '-1'); }
    var focus = alert || byId('drawer-title');
    if (focus) { focus.focus({ preventScroll: window.innerWidth > 820 }); }
    byId('drawer').scrollTop = 0;
  }

  function close() {
    var drawer = byId('drawer');
    if (!drawer || !byId('list') || !drawer.firstElementChild) { return false; }
    var link = byId('case-' + openId());
    drawer.innerHTML = '';
    document.body.classList.remove('with-drawer');
    marked();
    (link || byId('main')).focus();
    return true;
  }

  // -- keyboard and mouse -------------------------------------------------------------------------------------------

  function links() { return Array.prototype.slice.call(document.querySelectorAll('a.case')); }

  function move(step) {
    var all = links();
    if (!all.length) { return; }
    var at = all.indexOf(document.activeElement);
    if (at < 0) { at = all.indexOf(byId('case-' + openId())); }
    var next = at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step));
    all[next].focus();
  }

  function showKeys(show) {
    byId('keys').hidden = !show;
    if (show) { byId('keys-close').focus(); } else if (byId('show-keys')) { byId('show-keys').focus(); }
  }

  function isField(element) { return /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName) || element.isContentEditable; }
  function isViewer(element) { return Boolean(element.closest && element.closest('.review')); }

  document.addEventListener('keydown', function (event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) { return; }
    if (event.key === 'Escape') {
      if (!byId('keys').hidden) { showKeys(false); } else if (isField(event.target)) { event.target.blur(); } else { close(); }
      return;
    }
    if (isField(event.target) || isViewer(event.target)) { return; }
    var inTable = event.target === document.body || event.target.matches('a.case, main, .scroll');
    var down = event.key === 'j' || (event.key === 'ArrowDown' && inTable);
    var up = event.key === 'k' || (event.key === 'ArrowUp' && inTable);
    if (down || up) { move(down ? 1 : -1); event.preventDefault(); }
    if (event.key === '/' && byId('f-patient')) { byId('f-patient').focus(); event.preventDefault(); }
    if (event.key === '?') { showKeys(true); event.preventDefault(); }
  });

  document.addEventListener('input', function (event) {
    if (event.target.closest('#verbs')) { typed = true; }
  });

  document.addEventListener('click', function (event) {
    var button = event.target.closest('button');
    if (button && button.id === 'drawer-close') { close(); }
    if (button && button.id === 'show-keys') { showKeys(true); }
    if (button && button.id === 'keys-close') { showKeys(false); }
    if (button && button.hasAttribute('data-copy')) { copy(button); }
    var row = event.target.closest('.cases tbody tr');
    if (row && !event.target.closest('a') && window.getSelection().isCollapsed) { row.querySelector('a.case').click(); }
  });

  function copy(button) {
    var text = button.getAttribute('data-copy');
    var done = function () { button.textContent = 'Copied'; };
    if (navigator.clipboard && window.isSecureContext) {
      navigator.clipboard.writeText(text).then(done, function () { select(button); });
    } else { select(button); }
  }

  function select(button) {
    var range = document.createRange();
    range.selectNodeContents(button.parentNode.querySelector('code'));
    var selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    if (document.execCommand('copy')) { button.textContent = 'Copied'; }
  }

  POLLED.forEach(function (id) { heard[id] = { at: clocks(), why: UNREACHED }; });
  marked();
  tell();
  setInterval(tick, EVERY_MS);
  setInterval(judge, 1000);
}());
