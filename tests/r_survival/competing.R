# What R's survival says of a synthetic cohort with competing events: Rscript tests/r_survival/competing.R
# Writes competing.csv, competing_values.csv beside this file (survival 3.5, cmprsk 2.2).
library(survival)
library(cmprsk)
set.seed(11)
n <- 300
x1 <- round(rnorm(n), 4)
x2 <- round(rnorm(n), 4)
first <- rexp(n, exp(0.7 * x1) / 30)
second <- rexp(n, exp(0.5 * x2) / 40)
lost <- runif(n, 5, 80)
time <- ceiling(pmin(first, second, lost))
cause <- ifelse(pmin(first, second) > lost, 0, ifelse(first <= second, 1, 2))
cohort <- data.frame(x1, x2, time, cause)
weighted <- finegray(Surv(time, factor(cause)) ~ ., data = cohort)
model <- coxph(Surv(fgstart, fgstop, fgstatus) ~ x1 + x2, weights = fgwt, data = weighted, ties = "breslow")
cohort$id <- rep(1:150, 2)
patient <- finegray(Surv(time, factor(cause)) ~ ., data = cohort)
efron <- coxph(Surv(fgstart, fgstop, fgstatus) ~ x1 + x2, weights = fgwt, data = weighted, ties = "efron")
own <- finegray(Surv(time, factor(cause)) ~ ., data = cbind(cohort, row = seq_len(n)))
one <- coxph(Surv(fgstart, fgstop, fgstatus) ~ x1 + x2, weights = fgwt, data = own, ties = "efron")
dfbeta <- residuals(one, type = "dfbeta", collapse = own$row, weighted = TRUE)
ranks <- function(t) sapply(t, function(u) mean(rank(cohort$time)[cohort$time == u]))
zph <- cox.zph(efron, transform = ranks, global = FALSE)
high <- cohort$x1 + 0.5 * cohort$x2 > 0
gray <- cuminc(cohort$time, cohort$cause, high)$Tests
ratio <- coxph(Surv(fgstart, fgstop, fgstatus) ~ I(x1 + 0.5 * x2 > 0), weights = fgwt, data = weighted, ties = "breslow")
over <- coxph(Surv(fgstart, fgstop, fgstatus) ~ x1 + x2, weights = fgwt, data = patient, ties = "breslow", cluster = id)
at <- c(10, 20, 40, 60)
curve <- summary(survfit(Surv(time, factor(cause)) ~ 1, cohort[1:4]), times = at)
values <- rbind(
  data.frame(what = "fine_gray", column = names(coef(model)), value = unname(coef(model))),
  data.frame(what = "incidence_event", column = at, value = curve$pstate[, 2]),
  data.frame(what = "incidence_competing", column = at, value = curve$pstate[, 3]),
  data.frame(what = "error_event", column = at, value = curve$std.err[, 2]),
  data.frame(what = "error_competing", column = at, value = curve$std.err[, 3]),
  data.frame(what = "fine_gray_efron", column = names(coef(efron)), value = unname(coef(efron))),
  data.frame(what = "likelihood_efron", column = c("null", "model"), value = efron$loglik),
  data.frame(what = "dfbeta_efron", column = seq_len(2 * n), value = as.vector(dfbeta)),
  data.frame(what = "ph_statistic", column = rownames(zph$table), value = zph$table[, 1]),
  data.frame(what = "gray", column = c("statistic", "p"), value = gray[1, 1:2]),
  data.frame(what = "hazard_ratio", column = "high", value = exp(unname(coef(ratio)))),
  data.frame(what = "error_over_patients", column = names(coef(over)), value = sqrt(diag(over$var)))
)
at <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
write.csv(cohort[1:4], file.path(at, "competing.csv"), row.names = FALSE)
write.csv(values, file.path(at, "competing_values.csv"), row.names = FALSE)
