# What riskRegression and cmprsk say of a synthetic cohort with ties between events and censoring: Rscript tests/r_survival/scores.R
# Writes scores.csv, scores_values.csv beside this file (riskRegression 2022.11, cmprsk 2.2, survival 3.5).
suppressMessages({library(survival); library(riskRegression); library(cmprsk)})
set.seed(23)
n <- 200
x1 <- round(rnorm(n), 4)
x2 <- round(rnorm(n), 4)
died <- rexp(n, exp(0.8 * x1) / 20)
lost <- runif(n, 2, 50)
time <- ceiling(pmin(died, lost))
event <- as.numeric(died <= lost)
score <- round(x1 + 0.5 * x2, 1)
at <- c(5, 10, 20)
risk <- sapply(at, function(t) 1 - exp(-t / 25 * exp(0.7 * score)))
untied <- round(pmin(died, lost), 6)
cause <- ifelse(event == 1, 1 + (x2 > 0.5), 0)
cohort <- data.frame(x1, x2, time, event, score, untied, cause)
found <- Score(list(risk),
  formula = Surv(time, event) ~ 1, data = cohort, times = at, cens.model = "km",
  metrics = c("auc", "brier"), null.model = FALSE, se.fit = FALSE
)
competing <- Score(list(risk),
  formula = Hist(time, cause) ~ 1, data = cohort, times = at, cause = 1, cens.model = "km",
  metrics = c("auc", "brier"), null.model = FALSE, se.fit = FALSE
)
until <- coxph(Surv(pmin(time, 20), event * (time <= 20)) ~ log(-log(1 - risk[, 3])), ties = "breslow")
benefit <- sapply(c(0.2, 0.4, 0.6), function(threshold) {
  above <- risk[, 3] >= threshold
  seen <- 1 - summary(survfit(Surv(time, event) ~ 1, cohort[above, ]), times = 20)$surv
  mean(above) * (seen - (1 - seen) * threshold / (1 - threshold))
})
weighted <- finegray(Surv(time, factor(cause)) ~ ., data = data.frame(time, cause, eta = log(-log(1 - risk[, 3]))))
weighted$event <- weighted$fgstatus * (weighted$fgstop <= 20)
slope <- coxph(Surv(fgstart, fgstop, event) ~ eta, weights = fgwt, data = weighted, ties = "breslow")
incidence <- function(rows) summary(survfit(Surv(time, factor(cause)) ~ 1, cohort[rows, ]), times = 20)$pstate[, 2]
of_event <- sapply(c(0.2, 0.4, 0.6), function(threshold) {
  above <- risk[, 3] >= threshold
  mean(above) * (incidence(above) - (1 - incidence(above)) * threshold / (1 - threshold))
})
outlived <- concordance(Surv(ifelse(cause == 2, 1000, time), cause == 1) ~ score, reverse = TRUE)
values <- rbind(
  data.frame(what = "auc_t", column = at, value = found$AUC$score$AUC),
  data.frame(what = "brier", column = at, value = found$Brier$score$Brier),
  data.frame(what = "auc_competing", column = at, value = competing$AUC$score$AUC),
  data.frame(what = "brier_competing", column = at, value = competing$Brier$score$Brier),
  data.frame(what = "slope_competing", column = 20, value = unname(coef(slope))),
  data.frame(what = "net_benefit_competing", column = c(0.2, 0.4, 0.6), value = of_event),
  data.frame(what = "observed_competing", column = 20, value = incidence(seq_len(n))),
  data.frame(what = "harrell_c_competing", column = "score", value = unname(outlived$concordance)),
  data.frame(what = "slope", column = 20, value = unname(coef(until))),
  data.frame(what = "net_benefit", column = c(0.2, 0.4, 0.6), value = benefit),
  data.frame(what = "fine_gray", column = c("x1", "x2"), value = unname(crr(untied, cause, cbind(x1, x2))$coef))
)
at <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
write.csv(cohort, file.path(at, "scores.csv"), row.names = FALSE)
write.csv(values, file.path(at, "scores_values.csv"), row.names = FALSE)
