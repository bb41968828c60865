# What R's survival says of a synthetic cohort that enters late, with ties: Rscript tests/r_survival/entry.R
# Writes entry.csv, entry_values.csv beside this file (survival 3.5).
library(survival)
set.seed(3)
n <- 500
x1 <- round(rnorm(n), 4)
x2 <- rbinom(n, 1, 0.4)
death <- rexp(n, exp(0.7 * x1 + 0.5 * x2) / 25)
start <- ifelse(runif(n) < 0.3, 0, floor(rexp(n, 1 / 15)))
lost <- start + runif(n, 2, 60)
stop <- ceiling(pmin(death, lost))
kept <- stop > start & death > start
cohort <- data.frame(x1, x2, start, time = stop, event = as.integer(death <= lost))[kept, ]
cohort$id <- rep(seq_len(nrow(cohort)), each = 2)[seq_len(nrow(cohort))]
end <- with(cohort, Surv(start, time, event))
fit <- coxph(end ~ x1 + x2, cohort, ties = "efron")
breslow <- coxph(end ~ x1 + x2 + cluster(id), cohort, ties = "breslow")
small <- coxph(end ~ x1, cohort, ties = "efron")
drift <- cox.zph(fit, transform = "rank", terms = FALSE, global = FALSE)$table
score <- cohort$x1 + 0.5 * cohort$x2
at <- c(5, 10, 20, 40)
curve <- summary(survfit(end ~ 1, cohort, conf.type = "log-log"), times = at)
hazard <- summary(survfit(breslow, newdata = data.frame(x1 = 0, x2 = 0), type = "aalen", se.fit = FALSE), times = at)
harrell <- concordance(end ~ score, cohort, reverse = TRUE)
rows <- nrow(cohort)
# without ties the log-rank test is the score test of Cox's model; survdiff takes no entry
untied <- with(cohort, Surv(start, time + seq_len(rows) / 1000, event))
values <- rbind(
  data.frame(what = "harrell_c", column = "score", value = harrell$concordance),
  data.frame(what = "pairs", column = names(harrell$count), value = unname(harrell$count)),
  data.frame(what = "log_rank", column = "x2", value = coxph(untied ~ x2, cohort)$score),
  data.frame(what = "at_risk", column = at, value = curve$n.risk),
  data.frame(what = "kaplan_meier", column = at, value = curve$surv),
  data.frame(what = "kaplan_meier_lower", column = at, value = curve$lower),
  data.frame(what = "kaplan_meier_upper", column = at, value = curve$upper),
  data.frame(what = "baseline", column = at, value = -log(hazard$surv)),
  data.frame(what = "coefficient", column = names(coef(fit)), value = unname(coef(fit))),
  data.frame(what = "error", column = names(coef(fit)), value = sqrt(diag(vcov(fit)))),
  data.frame(what = "breslow_coefficient", column = names(coef(breslow)), value = unname(coef(breslow))),
  data.frame(what = "robust_error", column = names(coef(breslow)), value = sqrt(diag(vcov(breslow)))),
  data.frame(what = "ph_statistic", column = rownames(drift), value = drift[, "chisq"]),
  data.frame(what = "likelihood_ratio", column = "x2", value = 2 * (fit$loglik[2] - small$loglik[2])),
  data.frame(what = "dfbeta", column = rep(names(coef(fit)), each = rows), value = c(residuals(fit, type = "dfbeta")))
)
at <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
write.csv(cohort, file.path(at, "entry.csv"), row.names = FALSE)
write.csv(values, file.path(at, "entry_values.csv"), row.names = FALSE)
