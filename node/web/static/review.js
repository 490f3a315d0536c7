/* The viewer of a case: slices by wheel, keys and slider; pictures come from the server and stay in this page's memory. */
(function () {
  'use strict';

  const KEPT = 120;      // pictures that a viewer holds; one of 512 x 512 pixels takes 1 MB when it is drawn
  const AHEAD = 3;       // slices that are fetched before anybody asks
  const PAGE = 10;       // slices of Page Up and Page Down

  function viewerOf(root) {
    const base = root.dataset.base;
    const count = Number(root.dataset.count);
    const rows = Number(root.dataset.rows);
    const columns = Number(root.dataset.columns);
    const form = root.querySelector('.review-tools');
    const slider = root.querySelector('.review-slice');
    const panes = Array.from(root.querySelectorAll('.review-pane'));
    const where = root.querySelector('.review-where');
    const readout = root.querySelector('.review-hu');
    const divider = root.querySelector('.review-position');
    const pictures = new Map();   // address -> image, the one asked for last at the end
    let places = [];              // what slices.json says of each slice
    let wanted = Number(root.dataset.number);
    let direction = 1;
    let loading = false;
    let again = false;
    let asking = false;
    let pointed = null;           // the pixel under the pointer that is to be asked for

    function field(name) {
      return form.elements.namedItem(name);
    }

    function isOn(name) {
      const box = field(name);
      return Boolean(box && box.checked);
    }

    function address(layer, number) {
      const query = new URLSearchParams({preset: field('preset').value});
      if (field('range')) {
        query.set('range', field('range').value);
      }
      if (isOn('outline')) {
        query.set('outline', '1');
      }
      return base + '/slices/' + number + '/' + layer + '.png?' + query.toString();
    }

    /* The picture of an address, and a promise that it is there or has failed. */
    function picture(url) {
      let entry = pictures.get(url);
      if (entry && entry.failed) {
        entry = undefined;
      }
      if (!entry) {
        const image = new Image();
        entry = {image: image, failed: false};
        entry.ready = new Promise(function (resolve) {
          image.onload = function () { resolve(entry); };
          image.onerror = function () { entry.failed = true; resolve(entry); };
        });
        image.src = url;
      }
      pictures.delete(url);
      pictures.set(url, entry);
      if (pictures.size > KEPT) {
        pictures.delete(pictures.keys().next().value);
      }
      return entry;
    }

    function layersShown() {
      return panes.map(function (pane) { return pane.dataset.layer; });
    }

    function paneOf(layer) {
      return panes.find(function (pane) { return pane.dataset.layer === layer; });
    }

    /* Put a picture into a frame in the place of the one before; `over` is the one that the divider uncovers. */
    function put(frame, entry, words, over) {
      const kind = over ? 'review-over' : 'review-under';
      const before = frame.querySelector('.' + kind);
      const image = entry.image;
      image.className = kind;
      image.alt = words;
      if (before && before !== image) {
        frame.replaceChild(image, before);
      } else if (!before) {
        frame.appendChild(image);
      }
    }

    function say(pane, text) {
      const line = pane.querySelector('.review-failed');
      line.textContent = text;
      line.hidden = !text;
      pane.querySelector('.review-frame').classList.toggle('review-empty', Boolean(text));
    }

    /* A picture that did not come: its address answers with the reason. */
    function explain(pane, url) {
      say(pane, 'This image is not shown.');
      fetch(url, {credentials: 'same-origin'}).then(function (answer) {
        return answer.text();
      }).then(function (text) {
        let words = text;  // a sentence, or JSON with one
        try {
          words = JSON.parse(text).detail;
        } catch (error) { /* it is the sentence itself */ }
        if (typeof words === 'string' && words.length < 500) {
          say(pane, words);
        }
      }).catch(function () {
        say(pane, 'This image is not shown: the node does not answer.');
      });
    }

    function shown(number, entries) {
      layersShown().forEach(function (layer, index) {
        const isOver = layer === 'synthetic' && isOn('curtain');
        const pane = paneOf(isOver ? 'source' : layer);
        const entry = entries[index];
        if (entry.failed) {
          explain(pane, entry.url);
          return;
        }
        if (!isOver) {
          say(pane, '');
        }
        put(pane.querySelector('.review-frame'), entry, layer + ', slice ' + number + sides, isOver);
      });
      cut();
      field('slice').value = String(number);
      const place = places[number - 1];
      const z = place && place.z_mm !== null ? ', z = ' + place.z_mm.toFixed(1) + ' mm' : '';
      const text = 'slice ' + number + ' of ' + count + z;
      slider.setAttribute('aria-valuetext', text);
      if (where.textContent !== text) {
        where.textContent = text;
      }
    }

    /* Show the slice that is wanted now; slices that were passed meanwhile are left out. */
    function show() {
      if (loading) {
        again = true;
        return;
      }
      loading = true;
      again = false;
      const number = wanted;
      const entries = layersShown().map(function (layer) {
        const url = address(layer, number);
        const entry = picture(url);
        entry.url = url;
        return entry;
      });
      Promise.all(entries.map(function (entry) { return entry.ready; })).then(function () {
        loading = false;
        shown(number, entries);
        if (again) {
          show();
        } else {
          fetchAhead(number);
        }
      });
    }

    function fetchAhead(number) {
      for (let step = 1; step <= AHEAD; step += 1) {
        [number + direction * step].concat(step === 1 ? [number - direction] : []).forEach(function (near) {
          if (near >= 1 && near <= count) {
            layersShown().forEach(function (layer) { picture(address(layer, near)); });
          }
        });
      }
    }

    function go(number) {
      const next = Math.max(1, Math.min(count, Math.round(number) || 1));
      if (next !== wanted) {
        direction = next > wanted ? 1 : -1;
        wanted = next;
        slider.value = String(next);
        readout.textContent = '';
        show();
      }
    }

    function cut() {
      const over = root.querySelector('.review-over');
      if (over) {
        over.style.clipPath = 'inset(0 0 0 ' + divider.value + '%)';
        root.querySelector('.review-line').style.left = divider.value + '%';
      }
    }

    /* One picture over the other, or beside it. */
    function arrange() {
      const curtain = isOn('curtain');
      root.classList.toggle('review-curtain', curtain);
      if (divider) {
        divider.parentNode.hidden = !curtain;
      }
      const frame = panes[0].querySelector('.review-frame');
      const over = frame.querySelector('.review-over');
      const line = frame.querySelector('.review-line');
      if (!curtain && over) {
        frame.removeChild(over);
      }
      if (!curtain && line) {
        frame.removeChild(line);
      }
      if (curtain && !line) {
        const made = document.createElement('span');
        made.className = 'review-line';
        frame.appendChild(made);
      }
      show();
    }

    function pixelUnder(event, frame) {
      const box = frame.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left) / box.width * columns);
      const row = Math.floor((event.clientY - box.top) / box.height * rows);
      return row >= 0 && row < rows && column >= 0 && column < columns ? {row: row, column: column} : null;
    }

    function readHu(event) {
      pointed = pixelUnder(event, event.currentTarget) || pointed;
      askHu();
    }

    /* One question at a time; the newest pixel is asked for when the one before is answered. */
    function askHu() {
      if (asking || !pointed) {
        return;
      }
      const pixel = pointed;
      const number = wanted;
      asking = true;
      pointed = null;
      const url = base + '/slices/' + number + '/hu.json?row=' + pixel.row + '&column=' + pixel.column;
      fetch(url, {credentials: 'same-origin'}).then(function (answer) {
        return answer.json();
      }).then(function (found) {
        const parts = ['column ' + pixel.column + ', row ' + pixel.row];
        if (typeof found.source === 'number') { parts.push('source ' + Math.round(found.source) + ' HU'); }
        if (typeof found.synthetic === 'number') { parts.push('synthetic ' + Math.round(found.synthetic) + ' HU'); }
        if (parts.length === 3) { parts.push('difference ' + Math.round(found.synthetic - found.source) + ' HU'); }
        readout.textContent = number === wanted ? parts.join(', ') : '';
      }).catch(function () {
        readout.textContent = '';
      }).then(function () {
        asking = false;
        askHu();
      });
    }

    function drag(event) {
      if (event.buttons === 1 && isOn('curtain')) {
        const box = event.currentTarget.getBoundingClientRect();
        divider.value = String(Math.round((event.clientX - box.left) / box.width * 100));
        cut();
        event.preventDefault();
      }
    }

    function onKey(event) {
      const tag = event.target.tagName;
      const isSlider = tag === 'INPUT' && event.target.type === 'range';
      if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) {
        return;
      }
      if ((tag === 'INPUT' && !isSlider && event.target.type !== 'checkbox') || tag === 'TEXTAREA' || tag === 'SELECT') {
        return;
      }
      const preset = field('preset').options[Number(event.key) - 1];
      const moves = {
        ArrowUp: wanted + 1, ArrowRight: wanted + 1, ArrowDown: wanted - 1, ArrowLeft: wanted - 1,
        PageUp: wanted + PAGE, PageDown: wanted - PAGE, Home: 1, End: count
      };
      if (preset) {
        field('preset').value = preset.value;
        show();
      } else if (event.target === divider || !Object.prototype.hasOwnProperty.call(moves, event.key)) {
        return;
      } else {
        go(moves[event.key]);
      }
      event.preventDefault();
    }

    function onWheel(event) {
      if (!event.ctrlKey && event.deltaY !== 0) {  // with Ctrl it is the zoom of the browser
        event.preventDefault();
        go(wanted + (event.deltaY < 0 ? 1 : -1));
      }
    }

    function mark(found) {
      const box = root.querySelector('.review-marks');
      const ticks = root.querySelector('.review-ticks');
      found.marks.forEach(function (one) {
        const item = document.createElement('li');
        const button = document.createElement('button');
        button.type = 'button';
        button.textContent = 'Slice ' + one.number + ': ' + one.words + (one.by_gate ? ' (named by a gate)' : '');
        button.addEventListener('click', function () { go(one.number); });
        item.className = one.by_gate ? 'review-by-gate' : '';
        item.appendChild(button);
        box.querySelector('ol').appendChild(item);
        const tick = document.createElement('span');
        tick.className = one.by_gate ? 'review-tick review-by-gate' : 'review-tick';
        tick.style.left = (count > 1 ? (one.number - 1) / (count - 1) * 100 : 50) + '%';
        ticks.appendChild(tick);
      });
      box.hidden = found.marks.length === 0;
    }

    function learn() {
      fetch(base + '/slices.json', {credentials: 'same-origin'}).then(function (answer) {
        return answer.ok ? answer.json() : null;
      }).then(function (found) {
        if (found) {
          places = found.slices;
          mark(found);
          if (!loading) {
            show();
          }
        }
      }).catch(function () { /* the pictures say themselves what is wrong */ });
    }

    const first = root.querySelector('.review-frame img');
    const sides = first && first.alt.indexOf(';') >= 0 ? first.alt.slice(first.alt.indexOf(';')) : '';
    root.querySelectorAll('.review-frame').forEach(function (frame) {
      frame.querySelector('img').className = 'review-under';
      frame.addEventListener('wheel', onWheel, {passive: false});
      frame.addEventListener('mousemove', drag);
      frame.addEventListener('mousedown', drag);
      if (rows > 0) {
        frame.addEventListener('mousemove', readHu);
      }
    });
    root.classList.add('review-scripted');
    root.addEventListener('keydown', onKey);
    slider.addEventListener('input', function () { go(Number(slider.value)); });
    form.addEventListener('submit', function (event) { event.preventDefault(); });
    form.addEventListener('change', function (event) {
      if (event.target === field('slice')) {
        go(Number(field('slice').value));
      } else if (event.target === field('curtain')) {
        arrange();
      } else {
        root.querySelectorAll('.review-range').forEach(function (one) { one.textContent = field('range').value; });
        show();
      }
    });
    if (divider) {
      divider.addEventListener('input', cut);
    }
    learn();
    show();
  }

  function begin() {
    document.querySelectorAll('.review:not(.review-scripted)').forEach(function (root) {
      if (root.querySelector('.review-tools')) {
        viewerOf(root);
      }
    });
  }

  if (document.readyState === 'loading') {
    document.addEventListener('DOMContentLoaded', begin);
  } else {
    begin();
  }
  document.addEventListener('htmx:afterSettle', begin);  // where htmx put a viewer into another page
}());
