/* Draws the charts of the trends; the table beside them says the same day by day. */
(function () {
  "use strict";
  var style = getComputedStyle(document.documentElement);
  var ink = style.getPropertyValue("--ink").trim(), faint = style.getPropertyValue("--faint").trim();
  var colour = style.getPropertyValue("--act").trim();

  function two(number) {
    return (number < 10 ? "0" : "") + number;
  }

  /* Month and day, which nobody reads the wrong way round; with the time where a day has several. */
  function moments(_chart, ticks) {
    var is_short = ticks.length > 1 && ticks[1] - ticks[0] < 86400;
    return ticks.map(function (tick) {
      var at = new Date(tick * 1000), day = two(at.getMonth() + 1) + "-" + two(at.getDate());
      return is_short ? day + " " + two(at.getHours()) + ":" + two(at.getMinutes()) : day;
    });
  }

  function draw(place, data) {
    if (!data[0].length) {
      place.textContent = "no figures yet";
      return;
    }
    var axis = { stroke: ink, grid: { stroke: faint, width: 1 } };
    new uPlot({
      width: place.clientWidth,
      height: 180,
      legend: { show: false },
      scales: { y: { range: function (_chart, _low, high) { return [0, high * 1.1 || 1]; } } },
      axes: [Object.assign({ values: moments, space: 90 }, axis), axis],
      series: [{}, { stroke: colour, paths: function () { return null; }, points: { show: true, size: 5, fill: colour } }],
    }, data, place);
  }

  fetch("/trends.json", { headers: { "X-Syncect-Poll": "1" } }).then(function (answer) {
    return answer.ok ? answer.json() : Promise.reject(new Error(String(answer.status)));
  }).then(function (figures) {
    document.querySelectorAll("[data-chart]").forEach(function (place) {
      draw(place, figures[place.getAttribute("data-chart")]);
    });
  }).catch(function () {
    document.querySelectorAll("[data-chart]").forEach(function (place) {
      place.textContent = "the figures could not be loaded";
    });
  });
})();
